"""The teacher in the YAML file of a search space: a network and a method, or predictions alone."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gped_nas.config import Config
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.models.base import COMMON_VALUES, FAMILIES, Genotype
from gped_nas.models.module_probe import ModuleFacts
from gped_nas.posterior.imported import ImportConfig
from gped_nas.search.space import GivenTeacher
from gped_nas.stream.calibration import CalibrationKind


def _as_whole(value: object) -> object:
    """Whole numbers as such: YAML reads ``1.8e+9`` as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_TrainedOn = (
    Literal["all"]
    | Annotated[int, Field(ge=1)]
    | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    | Annotated[str, Field(pattern=r"\.npy$")]
    | None
)
_TRAINED_ON: _TrainedOn = Field(
    default=None,
    description="rows of the training data that an imported ensemble has seen, so that validation "
    "and test are carved from others: all, a number of first rows, row numbers, or an .npy of them",
)
_CALIBRATION: CalibrationKind = Field(
    default="none",
    description="none, temperature or stacking: how the samples are calibrated on validation",
)
_Count = Annotated[int, BeforeValidator(_as_whole), Field(ge=0, le=2**62)]


class TeacherFile(Config):
    """A teacher that is sampled, or whose weights are imported."""

    family: str
    genotype: dict[str, Any]
    method: dict[str, Any]
    prior: dict[str, Any] = {}
    likelihood: dict[str, Any] = {}
    trained_on: _TrainedOn = _TRAINED_ON
    module: ModuleFacts | None = Field(
        default=None, description="what a run found of the module; written by it, not by you"
    )
    calibration: CalibrationKind = _CALIBRATION


class GivenTeacherFile(Config):
    """A teacher of which predictions alone are known."""

    predictions: str = Field(
        min_length=1,
        description="an npz of predictions, or a folder of shards; relative to the current folder",
    )
    name: str = Field(
        default="imported ensemble", min_length=1, max_length=200, description="for people"
    )
    macs: _Count | None = Field(
        default=None, description="multiply-adds of one example through all members"
    )
    storage_bytes: _Count | None = Field(
        default=None, description="bytes of all members' weights on disk"
    )
    at_chance: bool = Field(
        default=False, description="take it even if it knows no more than the labels alone"
    )
    trained_on: _TrainedOn = _TRAINED_ON
    calibration: CalibrationKind = _CALIBRATION

    @model_validator(mode="before")
    @classmethod
    def _needs_no_network(cls, data: Any) -> Any:
        of_both = cls.model_fields.keys() & TeacherFile.model_fields.keys()
        of_networks = [
            name for name in TeacherFile.model_fields if name in data and name not in of_both
        ]
        if of_networks:
            raise ValueError(
                f"found {', '.join(of_networks)} beside predictions, which are all that is known "
                "of such a teacher; remove them"
            )
        return data

    @property
    def given(self) -> GivenTeacher:
        """What is said of it."""
        return GivenTeacher(self.name, self.macs, self.storage_bytes)

    @property
    def method(self) -> ImportConfig:
        """The settings that bring its predictions."""
        return ImportConfig(name="import", path=self.predictions, at_chance=self.at_chance)


def is_given(data: Mapping[str, Any]) -> bool:
    """Whether the plain data of a space name predictions in the teacher's place."""
    teacher = data.get("teacher")
    return isinstance(teacher, Mapping) and "predictions" in teacher


def teacher_genotype(teacher: TeacherFile, where: str) -> Genotype:
    """The network that a teacher's settings name.

    Raises:
        RegistryError: an unknown family.
        ConfigError: a value that it does not have.
    """
    key = f"{where}: teacher.genotype"
    for name in teacher.genotype:
        if name in COMMON_VALUES:
            raise ConfigError(f"{key}.{name}: a teacher is neither pruned nor quantized; remove it")
    try:
        genotype = Genotype(teacher.family, **teacher.genotype)
    except RegistryError as error:
        raise RegistryError(f"{where}: teacher.family: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from None

    for name, value in genotype.architecture().items():
        if name in FAMILIES[genotype.family].of_training:
            raise ConfigError(
                f"{key}.{name}: found {value}, expected none: it is of a student's training and "
                "folded away after it, and a teacher's weights are sampled as they are; remove it"
            )
    return genotype
