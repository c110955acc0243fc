"""Take a teacher's posterior home in few bytes: one file, and a loader that needs torch alone."""

import math
import runpy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from gped_nas import __version__
from gped_nas.api.asking import check_networks, check_stored
from gped_nas.api.coding_choices import Choice, parse_choice, settings_of
from gped_nas.api.coding_places import study_or_space
from gped_nas.api.finding import session_with_stream
from gped_nas.api.sampling import as_networks_see, sample, stream_key
from gped_nas.api.session import Session, new_session
from gped_nas.api.teacher import load_dataset
from gped_nas.data.base import Dataset
from gped_nas.errors import GateError
from gped_nas.export.placing import place
from gped_nas.export.posterior import (
    LOADER_FILE,
    POSTERIOR_FILE,
    loader_text,
    posterior_bytes,
    trace_network,
)
from gped_nas.models.base import Params
from gped_nas.posterior.base import ChainConfig, MethodConfig, unflatten
from gped_nas.posterior.codecs.base import (
    Code,
    CodecConfig,
    FiniteCodec,
    LawCodec,
    code_of_state,
    codec_of,
)
from gped_nas.search.space import SearchSpace
from gped_nas.stream.chunks import state_of

if TYPE_CHECKING:
    from gped_nas.api.study import Study
    from gped_nas.models.module import Modules

OPTION = "--posterior"
TOLERANCE = 1e-5
"""What the loader may answer otherwise than the house, beside the size of an answer."""
_NUM_NETWORKS, _NUM_INPUTS = 4, 32
"""That are compared before anything is written."""
Predict = Callable[[Params, Tensor], Tensor]


@dataclass(frozen=True)
class PosteriorExport:
    """What was written.

    Attributes:
        folder: where ``posterior.safetensors`` and ``load_posterior.py`` lie.
        codec: with its settings, in words.
        bytes: of the file.
        networks_bytes: of the samples that were coded, as they are.
        difference: the largest one between the loader's answers and the house's, beside their size.
    """

    folder: Path
    codec: str
    bytes: int
    networks_bytes: int
    difference: float


def export_posterior(
    what: "Study | SearchSpace | str | Path",
    codec: str,
    folder: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    storage: str | None = None,
    out: str | Path = "reports",
    session: Session | None = None,
    modules: "Modules | None" = None,
) -> PosteriorExport:
    """Write the posterior of a teacher, all chains of it, to a folder of its own.

    Args:
        what: a study or a space; or a name: of a study in ``out`` before a shipped space.
        codec: ``"low_rank"``, or ``"quantized:bits=4 of subset:num_samples=20"``.
        folder: ``<study>-<codec>`` by default.
        overrides: settings of a space that is read here, as in ``load_space``.
        storage: where a study lies, if not in its folder.
        out: folder of all studies.
        session: how to run.
        modules: what builds a teacher's network where its family is ``module``, as in ``run``.

    Raises:
        ConfigError, RegistryError: an unknown codec, one without a loader, settings that do not go
            with the samples, or networks with a step that the loader does not know.
        GateError: the loader does not answer as the house does.
        Interrupted: the session said stop; the same call goes on from there.
        EnvironmentProblem: the folder cannot be written.
    """
    choice = parse_choice(codec, OPTION)
    text = loader_text(choice.codec)
    session = session or new_session()
    study, space = study_or_space(
        what, overrides=overrides, storage=storage, out=Path(out), modules=modules
    )
    check_stored(space, "a codec, which reads its samples")
    check_networks(space, "whose parameters a codec stores")
    dataset = load_dataset(space)
    if study is not None:
        description = study.ledger.document.description
        session = session_with_stream(space, dataset, session, description, study.path)

    # what cannot be taken home is refused before anything is sampled
    method = codec_method(space, choice)
    predict = _predict(space, dataset)
    graph = trace_network(predict, stream_key(space, dataset).shapes, dataset.raw_shape)

    code = _code(replace(space, method=method), dataset, session)
    data = posterior_bytes(code, graph, _about(space, dataset))
    difference = _check(text, data, code, predict, dataset)

    name = space.name if study is None else study.name
    target = Path(folder or f"{name}-{choice.title.replace(' ', '-')}")
    files = {POSTERIOR_FILE: data, LOADER_FILE: text.encode()}
    place(files, target, first=POSTERIOR_FILE, ours=list(files))
    return PosteriorExport(target, str(choice), len(data), _bytes_sampled(method, code), difference)


def codec_method(space: SearchSpace, choice: Choice) -> CodecConfig:
    """The codec as a method that reads the samples of the space's own one.

    A space of this very codec is taken as it is.

    Raises:
        ConfigError: the settings do not go with the samples.
    """
    if isinstance(space.method, CodecConfig) and choice == Choice(space.method.name):
        return space.method
    method = settings_of(choice, space.method, OPTION)
    if isinstance(method, ChainConfig):  # the code is wanted, and no draws
        method = method.model_copy(update={"num_samples": 1})
    return method


def _bytes_sampled(method: MethodConfig, code: Code) -> int:
    """Bytes of the networks that were sampled, before any codec read them."""
    while isinstance(method, CodecConfig):
        method = method.of
    num_weights = sum(math.prod(shape) for shape in code.shapes.values())
    return 4 * num_weights * method.count(code.shapes)


def _code(space: SearchSpace, dataset: Dataset, session: Session) -> Code:
    """The code of a space's method, fitted unless its stream is there."""
    stream = sample(space, dataset, session)
    assert isinstance(space.method, CodecConfig)
    code = code_of_state(space.method, state_of(stream.segments[-1], 0), stream.key.shapes)
    assert code is not None, "a sample was drawn from it"
    return code


def _predict(space: SearchSpace, dataset: Dataset) -> Predict:
    """Parameters and raw inputs to what a network predicts, of a real label in its own unit."""
    unit = dataset.label_normalization

    def predict(params: Params, raw: Tensor) -> Tensor:
        x = as_networks_see(space, dataset, dataset.normalization(raw))
        predicted = space.likelihood.predict(space.family.forward(params, x))
        if unit is None:
            return predicted
        mean, variance = predicted.unbind(-1)
        return torch.stack([mean * unit.std + unit.mean, variance * unit.std**2], -1)

    return predict


def _about(space: SearchSpace, dataset: Dataset) -> dict[str, Any]:
    """What the metadata say beside the code and the graph."""
    return {
        "task": dataset.task,
        "input_shape": list(dataset.raw_shape),
        "class_names": list(dataset.class_names or ()),
        "of": space.teacher_text,
        "dataset": dataset.name,
        "version": __version__,
    }


def _check(text: str, data: bytes, code: Code, predict: Predict, dataset: Dataset) -> float:
    """The largest difference between the loader's answers and the house's, beside their size.

    Raises:
        GateError: it is above ``TOLERANCE``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / POSTERIOR_FILE
        path.write_bytes(data)
        (Path(folder) / LOADER_FILE).write_text(text)
        loader: Any = runpy.run_path(str(Path(folder) / LOADER_FILE))
        posterior = loader["Posterior"](str(path))

    raw = dataset.raw("validation")[:_NUM_INPUTS].float()
    drawn_SW = _networks(code)
    loaded_SW = posterior.networks(len(drawn_SW))[0][: len(drawn_SW)]

    with torch.no_grad():
        expected = [predict(unflatten(theta_W, code.shapes), raw) for theta_W in drawn_SW]
    pairs = {
        "networks": (loaded_SW, drawn_SW),
        "answers": (posterior.single(loaded_SW, raw.numpy()), torch.stack(expected)),
    }
    largest = 0.0
    for what, (loaded, house) in pairs.items():
        difference = float(((loaded - house).abs() / house.abs().clamp_min(1)).max())
        largest = max(largest, difference)
        if not difference <= TOLERANCE:
            raise GateError(
                f"{LOADER_FILE}: its {what} differ from the house's by {difference:.2g}, expected "
                f"at most {TOLERANCE:g}; nothing was written"
            )
    return largest


def _networks(code: Code) -> Tensor:
    """The first networks of a finite code, or draws of a law as the loader's default seed has."""
    codec = codec_of(code.codec)
    if isinstance(codec, LawCodec):
        return codec.draws(code, _NUM_NETWORKS, generator=Generator().manual_seed(0))

    assert isinstance(codec, FiniteCodec), "codes are of codecs"
    num = min(_NUM_NETWORKS, len(code.tensors["weight"]))
    return torch.stack([codec.theta(code, index) for index in range(num)])
