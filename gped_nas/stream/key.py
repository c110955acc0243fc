"""What a stream's name covers: everything that fixes its posterior samples, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gped_nas.errors import StreamError
from gped_nas.io import canonical_json, read_json, sha256_text
from gped_nas.models.base import FAMILIES, Genotype, Shapes
from gped_nas.models.module_probe import parse_parameters
from gped_nas.posterior.likelihoods import LIKELIHOODS, CategoricalLikelihood, Likelihood
from gped_nas.posterior.noise import family_with_noise, shapes_with_noise, without_noise
from gped_nas.spelling import as_digested
from gped_nas.stream.format import FORMAT_VERSION, check_version

_CATEGORICAL = CategoricalLikelihood()


@dataclass(frozen=True)
class StreamKey:
    """The key of a stream.

    Attributes:
        dataset: digest of the dataset's bytes and split.
        input_shape, num_outputs: what the teacher maps from and to, without a learned noise.
        genotype: the teacher's architecture, plain data with ``family``; empty where predictions
            alone are known of it.
        prior: the prior's settings.
        method: what the method says of itself (``MethodConfig.identity``): its settings without the
            number of samples; under ``of`` those of the method whose samples it reads, with how
            many it reads.
        seed: the root seed of the chains.
        likelihood: the likelihood's settings; categorical unless said otherwise.
        module: parameters and answers of a user's module, see ``models.module``; None of a teacher
            of any other family.
    """

    dataset: str
    input_shape: tuple[int, ...]
    num_outputs: int
    genotype: Mapping[str, Any]
    prior: Mapping[str, Any]
    method: Mapping[str, Any]
    seed: int
    likelihood: Mapping[str, Any] = field(default_factory=_CATEGORICAL.to_json)
    module: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the format version.

        A categorical likelihood is left out: keys had none before there were others, and their
        digests stay.
        """
        data = {
            "format_version": FORMAT_VERSION,
            "dataset": self.dataset,
            "input_shape": list(self.input_shape),
            "num_outputs": self.num_outputs,
            "genotype": dict(self.genotype),
            "prior": dict(self.prior),
            "method": as_digested(self.method),
            "seed": self.seed,
        }
        if self.likelihood != _CATEGORICAL.to_json():
            data["likelihood"] = dict(self.likelihood)
        if self.module is not None:
            data["module"] = dict(self.module)
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "StreamKey":
        """The key that ``to_json`` wrote."""
        values = dict(data)
        values.pop("format_version", None)
        values["input_shape"] = tuple(values["input_shape"])
        return StreamKey(**values)

    @staticmethod
    def read(folder: Path) -> "StreamKey":
        """The key of the stream in a folder.

        Raises:
            StreamError: the key cannot be read, or is not the one that the folder's name hashes.
        """
        path = folder / "key.json"
        data = read_json(path)
        check_version(data, path)
        try:
            key = StreamKey.from_json(data["key"])
            digest = key.digest
            key.likelihood_model  # noqa: B018  refuse a likelihood that there is not
            key.module and parse_parameters(key.module["parameters"])
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            raise StreamError(f"{path}: malformed; delete {folder} to rebuild it") from None

        if digest != data.get("digest") or folder.absolute().name != digest[:32]:
            raise StreamError(f"{path}: does not hash to its name; delete {folder} to rebuild it")
        return key

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return sha256_text(canonical_json(self.to_json()))

    def folder(self, root: Path) -> Path:
        """Where the stream of this key lives under ``root``."""
        return root / self.digest[:32]

    @property
    def of(self) -> "StreamKey | None":
        """The key of the stream whose posterior samples this one's were made of, if of any."""
        nested = self.method.get("of")
        if not (isinstance(nested, Mapping) and isinstance(nested.get("method"), Mapping)):
            return None
        return replace(self, method=nested["method"])

    @property
    def shapes(self) -> Shapes:
        """Parameter shapes of the teacher; none where predictions alone are known of it."""
        if not self.genotype:
            return {}
        if self.module is not None:
            return shapes_with_noise(
                parse_parameters(self.module["parameters"]), self.likelihood_model
            )
        genotype = Genotype.from_json(self.genotype)
        family = family_with_noise(FAMILIES[genotype.family], self.likelihood_model)
        return family.shapes(dict(genotype.values), self.input_shape, self.num_outputs)

    @property
    def network_shapes(self) -> Shapes:
        """Those of ``shapes`` that are of its network, without a noise beside it."""
        return without_noise(self.shapes)

    @property
    def likelihood_model(self) -> Likelihood:
        """The likelihood that ``likelihood`` describes."""
        settings = dict(self.likelihood)
        return LIKELIHOODS[settings["name"]](**settings)

    @property
    def num_predicted(self) -> int:
        """Numbers that a posterior sample predicts for one input."""
        return self.likelihood_model.num_predicted(self.num_outputs)
