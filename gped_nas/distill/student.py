"""A student as people use it, and its two files: ``weights.safetensors`` and ``spec.json``.

``spec.json`` is all that is needed beside the weights: family, input shape, class names, targets,
normalization and storage dtype. It carries the SHA-256 of each file beside it, and its own: of its
canonical JSON without that field.

Raw inputs in the dataset's own range go in; every expectation the student was distilled for comes
out.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator
from torch import Tensor, nn

from gped_nas import rng
from gped_nas.config import Config, parse
from gped_nas.data.inputs import as_inputs
from gped_nas.data.normalization import (
    AnyNormalization,
    AxisNormalization,
    ImputingNormalization,
    Normalization,
)
from gped_nas.data.preparation import AnyPreparation, parse_preparation
from gped_nas.data.scale import Scale, parse_scale
from gped_nas.distill.answers import answers
from gped_nas.errors import ConfigError, DamageError, DataError, GpedError, UndigestedWarning
from gped_nas.io import (
    canonical_json,
    digest_of,
    make_dir,
    read_json,
    write_bytes,
    write_text,
)
from gped_nas.models.base import FAMILIES, Genotype, Params, Shapes, shapes_of
from gped_nas.models.storage import parse_weights, read_bytes, serialize
from gped_nas.targets.base import Target, parse_targets, resolve
from gped_nas.targets.factors import draw_factors
from gped_nas.targets.layout import HeadLayout

SPEC_VERSION = 1
WEIGHTS_FILE, SPEC_FILE = "weights.safetensors", "spec.json"


@dataclass(frozen=True)
class StudentSpec:
    """What a student is, apart from its weights.

    Attributes:
        family: name of the family whose forward it runs.
        input_shape: shape of one input.
        class_names: one a class, in label order; none for a real label.
        targets: what it predicts, in the order of the raw outputs; a name stands for the registered
            target.
        normalization: raw inputs to network inputs.
        label_normalization: real labels to the unit of the network's outputs; None for classes.
        preparation: how a file like the training data's becomes raw inputs; None where it holds
            these.
        scale: what a radius is a share of; None in a file of before that was kept.
        storage_dtype: how its weights lie on disk.
        genotype: plain data of the genotype it was drawn with, before pruning.
        about: where it comes from: study, trial, stream; of an export also its files; plain data,
            for people.
    """

    family: str
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    targets: tuple[Target, ...]
    normalization: AnyNormalization
    storage_dtype: str
    genotype: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    label_normalization: Normalization | None = None
    preparation: AnyPreparation | None = None
    scale: Scale | None = None

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Shape of one input as the network sees it: flags of missing numbers come behind."""
        if not isinstance(self.normalization, ImputingNormalization):
            return self.input_shape
        return (self.input_shape[0] + len(self.normalization.flagged),)

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", resolve(self.targets))

    @cached_property
    def layout(self) -> HeadLayout:
        """Its heads.

        Raises:
            ConfigError: a target's settings are for another number of classes.
        """
        return HeadLayout(self.targets, len(self.class_names) or 1)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the version of this layout."""
        spec = {
            "spec_version": SPEC_VERSION,
            "family": self.family,
            "input_shape": list(self.input_shape),
            "class_names": list(self.class_names),
            "targets": [target.to_json() for target in self.targets],
            "normalization": self.normalization.to_json(),
            "storage_dtype": self.storage_dtype,
            "genotype": dict(self.genotype),
            "about": dict(self.about),
        }

        if self.label_normalization is not None:
            spec["label_normalization"] = self.label_normalization.to_json()
        if self.preparation is not None:
            spec["preparation"] = self.preparation.model_dump(mode="json")
        if self.scale is not None:
            spec["scale"] = self.scale.to_json()
        return spec


class _NormalizationFile(Config):
    mean: float
    std: float = Field(gt=0)


class _AxisNormalizationFile(Config):
    mean: Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
    std: Annotated[tuple[PositiveFloat, ...], Field(strict=False, min_length=1)]
    fill: Annotated[tuple[float, ...] | None, Field(strict=False)] = None
    flagged: Annotated[tuple[NonNegativeInt, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _one_each(self) -> "_AxisNormalizationFile":
        if len(self.mean) != len(self.std):
            raise ValueError(f"found {len(self.mean)} means and {len(self.std)} deviations")
        if self.fill is not None and len(self.fill) != len(self.mean):
            raise ValueError(
                f"found {len(self.mean)} means and {len(self.fill)} numbers to fill in"
            )
        if any(column >= len(self.mean) for column in self.flagged):
            raise ValueError(f"flagged: found {self.flagged}, expected columns of the table")
        return self


class _SpecFile(Config):
    """Layout of ``spec.json``."""

    spec_version: int
    family: str
    input_shape: Annotated[tuple[int, ...], Field(strict=False)]
    class_names: Annotated[tuple[str, ...], Field(strict=False)]
    targets: Annotated[tuple[Any, ...], Field(strict=False)]
    normalization: dict[str, Any]
    storage_dtype: str
    genotype: dict[str, Any] = {}
    about: dict[str, Any] = {}
    label_normalization: _NormalizationFile | None = None
    preparation: dict[str, Any] | None = None
    scale: dict[str, Any] | None = None
    files: dict[str, str] = {}
    digest: str = ""

    @model_validator(mode="after")
    def _labels_are_of_one_kind(self) -> "_SpecFile":
        if bool(self.class_names) == bool(self.label_normalization):
            raise ValueError(
                "expected class_names, or label_normalization where labels are real numbers"
            )
        return self


class Student(nn.Module):
    """A network that predicts posterior expectations from raw inputs.

    Args:
        spec: what it is.
        params: its float32 parameters by name.
        spec_sha256: the digest in its ``spec.json``; empty where it was not read from one that has
            it.

    Raises:
        DataError: the parameters do not fit the spec.
    """

    def __init__(self, spec: StudentSpec, params: Params, *, spec_sha256: str = "") -> None:
        super().__init__()
        self.spec = spec
        self.spec_sha256 = spec_sha256
        self._names = list(params)
        self.weights = nn.ParameterList(
            nn.Parameter(p, requires_grad=False) for p in params.values()
        )

        try:
            raw = self.forward(torch.zeros((1, *spec.input_shape)))
        except (RuntimeError, KeyError) as error:
            raise DataError(
                f"weights do not fit the spec's {spec.family} on {spec.input_shape}: {error}"
            ) from None

        expected = spec.layout.num_outputs
        if raw.shape[-1] != expected:
            names = [target.name for target in spec.targets]
            raise DataError(
                f"weights give {raw.shape[-1]} outputs, the spec's heads {names} need {expected}"
            )

    @property
    def params(self) -> Params:
        """Parameters by name."""
        return {name: p.data for name, p in zip(self._names, self.weights, strict=True)}

    @property
    def shapes(self) -> Shapes:
        """Parameter shapes by name."""
        return shapes_of(self.params)

    def forward(self, x: Tensor) -> Tensor:
        """Raw head outputs (B, U) for raw inputs (B, *input_shape)."""
        params = dict(zip(self._names, self.weights, strict=True))
        return FAMILIES[self.spec.family].forward(params, self.spec.normalization(x))

    @torch.no_grad()
    def predict(self, x: Tensor | NDArray[Any], *, batch_size: int = 512) -> dict[str, Tensor]:
        """Every expectation the student was distilled for.

        Args:
            x: raw inputs (N, *input_shape) in the dataset's own range, a tensor or a numpy array;
                (N, H, W) is taken for one channel.
            batch_size: inputs at a time.

        Returns:
            ``{target: (N, G)}``, derived targets included, and mutual information and the
            intersection probability wherever they follow from them: ``predictive`` holds
            probabilities, ``expected_entropy`` nats, ``predictive_normal`` mean and variance in the
            label's own unit and that squared; other units are told by ``TARGETS[name].label``.

        Raises:
            DataError: the inputs have another shape, or are no numbers.
        """
        x = as_inputs(x, self.spec.input_shape)
        parts = torch.split(x, batch_size)
        raw = torch.cat([self(part) for part in parts]) if len(x) else self(x)
        return answers(self.spec, raw)

    @torch.no_grad()
    def draws(
        self, x: Tensor | NDArray[Any], num_draws: int, *, seed: int = 0, batch_size: int = 512
    ) -> Tensor:
        """Functions drawn as from the posterior: log-probabilities (draws, N, C), nats.

        A draw says together what it says at all N inputs, as one posterior sample does. The seed
        settles which functions are drawn; the small part that is no shared factor is drawn anew
        where inputs are asked in another order or number.

        Args:
            x: raw inputs, as for ``predict``.
            num_draws: how many functions.
            seed: of the draws.
            batch_size: inputs at a time.

        Raises:
            DataError: the inputs have another shape, or are no numbers.
            ConfigError: the student was not distilled for ``factors``.
        """
        if "factors" not in self.spec.layout.slices:
            names = [target.name for target in self.spec.targets]
            raise ConfigError(
                f"draws: found a student of the targets {names}, expected 'factors' among them; "
                "list it in the space's targets"
            )
        values = self.predict(x, batch_size=batch_size)["factors"]
        generator = rng.generator(seed, "draws of a student")
        return draw_factors(values, len(self.spec.class_names), num_draws, generator=generator)


def save_student(folder: Path, spec: StudentSpec, params: Params) -> int:
    """Write a student's two files and return the size of the weights file in bytes.

    Raises:
        EnvironmentProblem: the folder cannot be written.
    """
    make_dir(folder)
    weights = serialize(params, spec.storage_dtype)
    write_text(folder / SPEC_FILE, spec_text(spec, {WEIGHTS_FILE: weights}))
    write_bytes(folder / WEIGHTS_FILE, weights)
    return len(weights)


def spec_text(spec: StudentSpec, files: Mapping[str, bytes]) -> str:
    """The text of ``spec.json``, with the digests of the files beside it and its own."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    data = {**spec.to_json(), "files": digests}
    return canonical_json({**data, "digest": digest_of(data)}) + "\n"


def seal_student(folder: Path) -> None:
    """Give a student that was written before there were digests its own.

    Raises:
        DataError: it cannot be loaded.
        EnvironmentProblem: the folder cannot be written.
    """
    path = folder / SPEC_FILE
    if "digest" in _read_object(path):
        return
    spec = load_student(folder).spec
    write_text(path, spec_text(spec, {WEIGHTS_FILE: read_bytes(folder / WEIGHTS_FILE)}))


def load_student(folder: Path, *, spec_sha256: str = "") -> Student:
    """The student whose two files lie in ``folder``, in evaluation mode.

    Args:
        folder: where they lie.
        spec_sha256: the digest that its ``spec.json`` must have; empty where nobody knows.

    Raises:
        DamageError: a file is not what was written, or the two do not fit each other.
        DataError: a file is missing or of a newer version.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        raise DataError(f"{folder}: no {SPEC_FILE} here; expected a student's folder")
    data = _read_object(path)
    _check_digest(path, data, spec_sha256)
    try:
        spec = _parse_spec(path, data)
    except GpedError as error:
        raise DataError(str(error)) from None

    weights_path = folder / WEIGHTS_FILE
    weights = read_bytes(weights_path)
    if "digest" in data:
        _check_file(weights_path, weights, data["files"])

    params = _in_the_familys_order(parse_weights(weights, weights_path), spec)
    try:
        student: Student = Student(spec, params, spec_sha256=data.get("digest", "")).eval()
    except DataError as error:
        raise DamageError(f"{folder}: {error}; restore {WEIGHTS_FILE} and {SPEC_FILE}") from None

    if "digest" not in data:
        warnings.warn(
            "a student that was made before students carried digests is read unchecked; "
            "`gped-search run` of its study, or exporting it again, adds them",
            UndigestedWarning,
            stacklevel=2,
        )
    return student


_REMEDY = f"restore {SPEC_FILE} and the files beside it from a copy, or export the student again"


def _read_object(path: Path) -> dict[str, Any]:
    """The content of a ``spec.json``."""
    try:
        data = read_json(path)
    except GpedError as error:
        raise DamageError(str(error)) from None
    if not isinstance(data, dict):
        raise DamageError(f"{path}: found no JSON object, expected a student's spec; {_REMEDY}")
    return data


def _check_digest(path: Path, data: Mapping[str, Any], expected: str) -> None:
    """Refuse a spec whose digest is not its own, or not that of the trial's record."""
    version = data.get("spec_version")
    if isinstance(version, int) and version > SPEC_VERSION:
        return  # how that one has digests is not known here; it is refused as such

    digest = data.get("digest")
    is_of_before = digest is None and "files" not in data
    if is_of_before and not expected:
        return

    try:
        actual = digest_of(data)
    except (ValueError, RecursionError):
        actual = "none"
    if digest != actual or not isinstance(data.get("files"), dict):
        raise DamageError(f"{path}: its content does not have the digest that it says; {_REMEDY}")
    if expected and digest != expected:
        raise DamageError(
            f"{path}: found a student with the digest {digest[:16]}, expected {expected[:16]} as "
            f"in the trial's record; {_REMEDY}"
        )


def _check_file(path: Path, data: bytes, digests: Mapping[str, Any]) -> None:
    """Refuse a file whose bytes do not have the digest that the spec says."""
    actual, expected = hashlib.sha256(data).hexdigest(), str(digests.get(path.name, "none"))
    if actual != expected:
        raise DamageError(
            f"{path}: found SHA-256 {actual[:16]}, expected {expected[:16]} as in {SPEC_FILE}; "
            f"{_REMEDY}"
        )


def _parse_spec(path: Path, data: Mapping[str, Any]) -> StudentSpec:
    # before the layout is checked: that of a newer version is not known here
    if data.get("spec_version") != SPEC_VERSION:
        raise ConfigError(
            f"{path}: spec version {data.get('spec_version')!r}, expected {SPEC_VERSION}"
        )
    file = parse(_SpecFile, data, str(path))
    targets = parse_targets(file.targets, f"{path}: targets")
    preparation = None
    if file.preparation is not None:
        preparation = parse_preparation(file.preparation, f"{path}: preparation")

    scale = None if file.scale is None else parse_scale(file.scale, f"{path}: scale")

    return StudentSpec(
        family=file.family,
        input_shape=file.input_shape,
        class_names=file.class_names,
        targets=targets,
        normalization=_normalization(file.normalization, f"{path}: normalization"),
        label_normalization=_label_normalization(file.label_normalization),
        preparation=preparation,
        scale=scale,
        storage_dtype=file.storage_dtype,
        genotype=file.genotype,
        about=file.about,
    )


def _in_the_familys_order(params: Params, spec: StudentSpec) -> Params:
    """Parameters in the order in which the genotype's shapes have them; a file keeps none."""
    try:
        genotype = Genotype.from_json(spec.genotype)
        shapes = genotype.shapes(spec.network_shape, spec.layout.num_outputs)
    except (GpedError, KeyError):
        # a genotype tells where a student comes from, and may be left out
        return params

    if set(shapes) != set(params):
        return params
    return {name: params[name] for name in shapes}


def _normalization(data: Mapping[str, Any], where: str) -> AnyNormalization:
    """That of the inputs: one pair of numbers, or two lists."""
    if isinstance(data.get("mean"), list):
        axes = parse(_AxisNormalizationFile, data, where)
        columns = AxisNormalization(axes.mean, axes.std)
        if axes.fill is None:
            return columns
        return ImputingNormalization(columns, axes.fill, axes.flagged)
    whole = parse(_NormalizationFile, data, where)
    return Normalization(whole.mean, whole.std)


def _label_normalization(file: _NormalizationFile | None) -> Normalization | None:
    return Normalization(file.mean, file.std) if file else None
