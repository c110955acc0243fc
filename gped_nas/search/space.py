"""A search space: what may be drawn, and everything that a study needs to know beside it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from gped_nas.config import Config
from gped_nas.data.base import Normalization
from gped_nas.data.dials import DataConfig
from gped_nas.data.seen import TrainedOn
from gped_nas.data.views import PredictionDtype, View
from gped_nas.distill.course import check_families, check_form
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.radius import states_radius
from gped_nas.evaluate.conditions import Condition
from gped_nas.evaluate.latency import LatencyConfig
from gped_nas.evaluate.outside import Outside
from gped_nas.models.base import FAMILIES, Family, Genotype
from gped_nas.models.costs import genotype_cost, smallest_cost
from gped_nas.models.labels import COUNTED_COSTS
from gped_nas.models.module import ModuleFamily, Modules, bind
from gped_nas.posterior.base import MethodConfig
from gped_nas.posterior.likelihoods import Likelihood
from gped_nas.posterior.noise import family_with_noise
from gped_nas.posterior.priors import Prior
from gped_nas.search.counting import count_genotypes
from gped_nas.search.dimensions import Choice, Fixed, StudentSpace
from gped_nas.search.goals import Objective
from gped_nas.search.objectives import describe_constraint
from gped_nas.search.pruning_checks import check_pruning
from gped_nas.stream.calibration import CalibrationKind
from gped_nas.targets.base import Target, for_labels
from gped_nas.targets.layout import HeadLayout

Sampler = Literal[
    "auto", "costs_known", "tpe", "nsga2", "nsga3", "gp", "qmc", "random", "brute_force", "grid"
]
FINITE_SAMPLERS = ("brute_force", "grid")
_Positive = Annotated[float, Field(gt=0)]
_PRECISIONS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


class SearchConfig(Config):
    """How the study draws."""

    sampler: Sampler = Field(
        default="auto", description="who proposes genotypes; auto chooses, and says why"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**31,
        description="root of what the sampler draws alone; the space's seed by default",
    )
    start_up: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="of costs_known: genotypes drawn at random before it models any; half of "
        "students_at_once by default, and three at least",
    )
    n_trials: int = Field(
        default=48, ge=1, le=1_000_000, description="finished trials, all runs together"
    )
    students_at_once: int = Field(
        default=12, ge=1, le=4096, description="students trained as one population"
    )
    keep: float | dict[str, float] = Field(
        default=0.9,
        description="the least share of the teacher's skill that is of use, or bounds by objective",
    )
    max_failures: int = Field(
        default=10, ge=0, description="failed trials after which the study gives up"
    )
    student_timeout: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="seconds of training and measuring that a student may take; its trial fails "
        "after them",
    )
    every_dtype: bool = Field(
        default=True,
        description="store and measure each trained student in all storage types of its space; "
        "the others are trials of their own, which count neither as trained nor in time",
    )
    stop_when_flat: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="trials without a gain of hypervolume beyond its noise after which the search "
        "ends; 0 goes on to n_trials",
    )

    @field_validator("keep", mode="before")
    @classmethod
    def _is_share_or_bounds(cls, keep: Any) -> Any:
        values = [*keep.values()] if isinstance(keep, dict) else [keep]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values) or not all(map(isfinite, numbers)):
            raise ValueError(
                f"found {str(keep)[:60]!r}, expected a share of the teacher's skill such as 0.9, "
                "or bounds by objective such as {accuracy: 0.95}"
            )
        return keep


class BaselineConfig(Config):
    """The MAP networks that fronts are compared with: the teacher's genotype, optimized."""

    precisions: Annotated[tuple[_Positive, ...], Field(strict=False, min_length=1)] = _PRECISIONS
    steps: int = Field(
        default=1000,
        ge=100,
        multiple_of=100,
        description="optimizer steps for each prior precision, a multiple of 100",
    )
    lr: float = Field(default=1e-3, gt=0)
    seeds: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="fresh networks of the best precision; 0 takes the best network itself",
    )

    @model_serializer(mode="wrap")
    def _without_later_settings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a later setting at its default: digests are those of before it existed
        data: dict[str, Any] = serialize(self)
        if not self.seeds:
            data.pop("seeds", None)
        return data


class TwinsConfig(Config):
    """Networks of a student's genotype that learn from others than the teacher, beside it."""

    seeds: int = Field(
        default=3, ge=0, le=1000, description="trainings of each twin; 0 makes no twins"
    )
    students: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="students of the front that have twins, the chosen one first",
    )


class FinalistsConfig(Config):
    """Genotypes of the front and near it that are trained anew, so that their figures are sound."""

    seeds: int = Field(
        default=0, ge=0, le=1000, description="fresh trainings of each finalist; 0 has none"
    )
    near: float = Field(
        default=0.2,
        ge=0,
        le=10,
        description="how near the front finalists are, in the logarithm of what a quality lacks to "
        "its best value: of NLL in log NLL",
    )


class StreamConfig(Config):
    """How the teacher's stream is kept."""

    prediction_dtype: PredictionDtype = Field(
        default="float32",
        description="how predictions at views are stored; float16 halves them and moves a "
        "probability by at most 0.0005 log(classes); imported predictions stay float32",
    )


@dataclass(frozen=True)
class GivenTeacher:
    """What its owner says of a teacher of which predictions alone are known.

    Attributes:
        name: for people: ``5 x resnet18``.
        macs: multiply-adds of one example through all members; None where it is not given.
        storage_bytes: of all members' weights on disk; None where it is not given.
    """

    name: str
    macs: int | None = None
    storage_bytes: int | None = None

    @property
    def costs(self) -> dict[str, int]:
        """The costs that are given, by name."""
        costs: dict[str, int] = {}
        if self.macs is not None:
            costs |= {"macs": self.macs, "flops": 2 * self.macs}
        if self.storage_bytes is not None:
            costs["storage_bytes"] = self.storage_bytes
        return costs


@dataclass(frozen=True)
class SearchSpace:
    """A validated search space.

    Attributes:
        name: its name; also the default name of its study.
        dataset: settings of the dataset, ``name`` included.
        data: the uncertainty dials.
        genotype: the teacher's genotype; None of a teacher that is ``given``.
        method: the posterior method's settings.
        prior: the teacher's prior.
        likelihood: of a label given the teacher's outputs.
        views: where students are compared with the teacher.
        stream: how the teacher's stream is kept.
        targets: what they are distilled for, in the order of the heads.
        students: ranges of the student families.
        objectives: what the front is about.
        constraints: bounds by metric or cost name.
        conditions: of the inputs at which predictors are measured; the clean one is among them.
        outside: out-of-distribution sets that uncertainty is measured by.
        search, recipe, baseline, twins, finalists, seed: see their classes.
        source: the file it was read from, for messages.
        resolved: all of it as plain data, defaults filled in: what a run writes to ``config.yaml``.
        given: what is said of a teacher of which predictions alone are known; None of any other.
        trained_on: rows of the training data that an imported teacher has seen, see ``data.seen``;
            None where nothing is said.
        module: the teacher's family where it is a user's module; None where it is any other.
        calibration: how the teacher's samples are read, see ``stream.calibration``.
        latency: how students are timed; None where nobody asks how fast they are.
    """

    name: str
    dataset: Mapping[str, Any]
    data: DataConfig
    genotype: Genotype | None
    method: MethodConfig
    prior: Prior
    likelihood: Likelihood
    views: tuple[View, ...]
    stream: StreamConfig
    targets: tuple[Target, ...]
    students: tuple[StudentSpace, ...]
    objectives: tuple[Objective, ...]
    constraints: Mapping[str, float]
    conditions: tuple[Condition, ...]
    search: SearchConfig
    recipe: Recipe
    baseline: BaselineConfig
    seed: int
    source: str = field(compare=False)
    resolved: Mapping[str, Any]
    given: GivenTeacher | None = None
    trained_on: TrainedOn | None = None
    twins: TwinsConfig = TwinsConfig()
    finalists: FinalistsConfig = FinalistsConfig()
    module: ModuleFamily | None = field(default=None, compare=False)
    calibration: CalibrationKind = "none"
    latency: LatencyConfig | None = None
    outside: tuple[Outside, ...] = ()

    @property
    def goal_names(self) -> tuple[str, ...]:
        """Names of objectives and constraints, in order: metrics and costs."""
        return (*(goal.name for goal in self.objectives), *self.constraints)

    @property
    def sampler_root(self) -> int:
        """The seed that the sampler draws by: its own where it has one."""
        return self.seed if self.search.seed is None else self.search.seed

    @property
    def radii(self) -> tuple[str, ...]:
        """Names of the conditions that state a radius, within which answers are proven."""
        return tuple(each.name for each in self.conditions if states_radius(each))

    @property
    def network(self) -> Genotype:
        """The teacher's genotype, where something has to be done with its networks.

        Raises:
            ConfigError: predictions alone are known of the teacher.
        """
        if self.genotype is None:
            raise ConfigError(
                f"{self.source}: teacher: known by its predictions alone, but this needs its "
                "networks; give teacher.family, teacher.genotype and teacher.method"
            )
        return self.genotype

    @property
    def family(self) -> Family:
        """The teacher's family, with what its likelihood learns. Raises as ``network``."""
        return family_with_noise(self.module or FAMILIES[self.network.family], self.likelihood)

    def with_modules(self, modules: Modules) -> "SearchSpace":
        """The space with what builds the teacher's module.

        Raises:
            ConfigError: it has no module of such a name.
        """
        return replace(self, module=bind(self.genotype, modules, None, self.source))

    def with_facts(self, input_shape: tuple[int, ...], num_outputs: int) -> "SearchSpace":
        """The space that says of its module what can be known without building it.

        Raises:
            ConfigError: the module is refused, or cannot be built here.
        """
        if self.module is None:
            return self
        num_outputs = self.likelihood.num_network_outputs(num_outputs)
        facts = self.module.facts(input_shape, num_outputs)
        teacher = {**self.resolved["teacher"], "module": facts.model_dump(mode="json")}
        return replace(self, resolved={**self.resolved, "teacher": teacher})

    @property
    def teacher_text(self) -> str:
        """The teacher in words: ``mlp(depth=1, width=8) by sgld``, or the name it was given."""
        if self.given is not None:
            return f"{self.given.name}, known by its predictions"
        return f"{self.genotype} by {self.method.title()}"

    def draw(self, trial: Any) -> Genotype:
        """Draw a genotype through an Optuna trial."""
        if len(self.students) == 1:
            return self.students[0].draw(trial)

        students = {student.prefix.rstrip("."): student for student in self.students}
        name = trial.suggest_categorical("family", list(students))
        return students[name].draw(trial)

    def genotype_of(self, params: Mapping[str, Choice]) -> Genotype:
        """The genotype that these parameters of Optuna give."""
        return self.draw(Fixed(params))

    def other_dtypes(self, params: Mapping[str, Choice | None]) -> tuple[str, ...]:
        """The storage types beside the drawn one that a student is stored in, too.

        Args:
            params: what was drawn, Optuna's.
        """
        if not self.search.every_dtype:
            return ()
        for student in self.students:
            name = f"{student.prefix}storage_dtype"
            for dimension in student.dimensions:
                if dimension.key == "storage_dtype" and name in params:
                    dtypes = [str(choice) for choice in dimension.choices]
                    return tuple(dtype for dtype in dtypes if dtype != params[name])
        return ()

    def training_of(self, params: Mapping[str, Choice]) -> Genotype:
        """What is trained for these parameters: in float32 where other types are stored, too."""
        genotype = self.genotype_of(params)
        if self.other_dtypes(params):
            return genotype.replace(storage_dtype="float32")
        return genotype

    def enumerate(self) -> Iterator[dict[str, Choice]]:
        """Every genotype of a finite space, as Optuna's parameters."""
        seen: set[Genotype] = set()
        for student in self.students:
            for params in student.enumerate(seen):
                if len(self.students) == 1:
                    yield params
                else:
                    yield {"family": student.prefix.rstrip("."), **params}

    @property
    def num_genotypes(self) -> int:
        """How many different genotypes a finite space holds."""
        return count_genotypes(self.students)

    @property
    def is_finite(self) -> bool:
        """Whether no range is a float range."""
        return all(s.is_finite for s in self.students)

    @property
    def label_weights(self) -> tuple[float, ...]:
        """The least and the largest share of the labels in a student's loss; one if they are equal.

        References without a share of their own are trained with the recipe's.
        """
        weights = set()
        for student in self.students:
            ends: tuple[Any, ...] = (self.recipe.label_weight,)
            for dimension in student.dimensions:
                if dimension.key == "label_weight":
                    ends = dimension.extremes()
            weights |= {float(end) for end in ends}
        return tuple(sorted({min(weights), max(weights)}))

    @property
    def largest_label_weight(self) -> float:
        """The largest share of the labels in the loss of a student or of a reference."""
        return max(*self.label_weights, self.recipe.label_weight)

    def stored_view(self, view: View) -> View:
        """The view at whose inputs the teacher's predictions are stored for one of the views."""
        return view.untouched if self.recipe.draw_views == "fresh" else view.asked

    def layout(
        self, num_classes: int, label_normalization: Normalization | None = None
    ) -> HeadLayout:
        """The heads of every student.

        Args:
            num_classes: C.
            label_normalization: of real labels, in whose unit some targets are; not needed for the
                sizes of heads.

        Raises:
            ConfigError: a target's settings are for another number of classes.
        """
        return HeadLayout(for_labels(self.targets, label_normalization), num_classes)

    def num_outputs(self, num_classes: int) -> int:
        """Raw outputs of every student. Raises as ``layout``."""
        return self.layout(num_classes).num_outputs

    def largest_cost(self, input_shape: tuple[int, ...], num_classes: int) -> dict[str, float]:
        """For each cost, that of the genotype that costs most."""
        num_outputs = self.num_outputs(num_classes)
        costs = [genotype_cost(g, input_shape, num_outputs) for g in self.corners()]
        return {name: float(max(getattr(c, name) for c in costs)) for name in COUNTED_COSTS}

    def smallest_cost(self, input_shape: tuple[int, ...], num_classes: int) -> dict[str, float]:
        """For each cost, a lower bound over all genotypes and all that pruning could leave."""
        num_outputs = self.num_outputs(num_classes)
        costs = [smallest_cost(g, input_shape, num_outputs) for g in self.corners()]
        return {name: float(min(getattr(c, name) for c in costs)) for name in COUNTED_COSTS}

    def corners(self) -> list[Genotype]:
        """Genotypes whose costs bound those of all others."""
        return [genotype for student in self.students for genotype in student.corners()]

    def check_buildable(self, input_shape: tuple[int, ...]) -> None:
        """Refuse a teacher or a student that cannot be built for inputs of this shape.

        Raises:
            ConfigError: names the value and the genotype.
        """
        if self.genotype is not None and self.module is None:
            self._build("teacher", self.genotype, input_shape)
        for i, student in enumerate(self.students):
            for genotype in student.corners():
                hint = f" (the ranges hold {genotype})"
                self._build(f"students[{i}]", genotype, input_shape, hint)

    def _build(
        self, key: str, genotype: Genotype, input_shape: tuple[int, ...], hint: str = ""
    ) -> None:
        """Refuse a genotype that cannot be built; ``key`` is that of its settings."""
        try:
            genotype.shapes(input_shape, 1)
        except ConfigError as error:
            is_of_family = str(error).startswith("family:")
            setting = key if is_of_family else f"{key}.genotype"
            raise ConfigError(f"{self.source}: {setting}.{error}{hint}") from None

    def check_reachable(self, input_shape: tuple[int, ...], num_classes: int) -> None:
        """Refuse what the data's shape makes impossible.

        Raises:
            ConfigError: even the smallest network breaks a cost constraint; all genotypes cost the
                same, and that cost is an objective; or see ``check_form``, ``check_families`` and
                ``check_pruning``.
        """
        where = f"{self.source}: recipe"
        check_form(self.recipe, self.corners(), input_shape, where)
        check_families(self.recipe, self.corners(), input_shape, where)
        for i, student in enumerate(self.students):
            key = f"{self.source}: students[{i}].genotype"
            num_outputs = self.num_outputs(num_classes)
            check_pruning(tuple(student.corners()), input_shape, num_outputs, key)
        smallest = self.smallest_cost(input_shape, num_classes)
        largest = self.largest_cost(input_shape, num_classes)
        for goal in self.objectives:
            if goal.name in smallest and smallest[goal.name] == largest[goal.name]:
                raise ConfigError(
                    f"{self.source}: objectives: every genotype of this space has {goal.name} "
                    f"{smallest[goal.name]:g}, expected costs that differ; leave this objective "
                    "out, or widen the ranges of students"
                )

        for name, bound in self.constraints.items():
            if name in smallest and smallest[name] > bound:
                raise ConfigError(
                    f"{self.source}: constraints.{name}: no genotype of this space can meet "
                    f"{describe_constraint(name, bound)}: the smallest network it holds has {name} "
                    f"{smallest[name]:g}; raise the bound or widen the ranges"
                )
