"""The YAML file of a search space: found, read, checked setting by setting."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gped_nas.config import Config, find_yaml, parse, read_yaml, split_key
from gped_nas.data.base import DATASETS
from gped_nas.data.dials import DataConfig
from gped_nas.data.seen import TrainedOn
from gped_nas.data.views import View, parse_views
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.evaluate.base import METRICS, LabelMeaning
from gped_nas.evaluate.condition_names import parse_conditions
from gped_nas.evaluate.conditions import Condition
from gped_nas.evaluate.latency import LatencyConfig
from gped_nas.evaluate.measured import CLEAN, parse_name
from gped_nas.evaluate.outside import Outside
from gped_nas.evaluate.outside_names import is_set_alone, parse_outsides
from gped_nas.models.base import Genotype
from gped_nas.models.labels import TIMED_COSTS
from gped_nas.models.module import ModuleFamily, Modules, bind
from gped_nas.posterior.base import MethodConfig, parse_method
from gped_nas.posterior.likelihoods import LIKELIHOODS, Likelihood
from gped_nas.posterior.priors import PRIORS, Prior
from gped_nas.search.dimensions import StudentSpace
from gped_nas.search.objectives import objective
from gped_nas.search.ranges import parse_dimensions
from gped_nas.search.shipped import shipped_spaces
from gped_nas.search.space import (
    BaselineConfig,
    FinalistsConfig,
    GivenTeacher,
    SearchConfig,
    SearchSpace,
    StreamConfig,
    TwinsConfig,
)
from gped_nas.search.space_checks import CHECKS, DEFAULT_TARGETS
from gped_nas.search.teacher_file import (
    GivenTeacherFile,
    TeacherFile,
    is_given,
    teacher_genotype,
)
from gped_nas.spelling import other_name, warn_of_old_names
from gped_nas.targets.base import Target, parse_targets

_MAX_INDEX_DIGITS = 9
"""Of an entry's place in a list; Python reads no integer of more than 4,300 digits."""


class _StudentsFile(Config):
    family: str
    genotype: dict[str, Any] = Field(min_length=1)


class _SpaceFile(Config):
    name: str = Field(min_length=1, max_length=200)
    dataset: dict[str, Any]
    data: DataConfig = DataConfig()
    teacher: TeacherFile
    views: Annotated[tuple[dict[str, Any], ...], Field(strict=False, min_length=1)] = (
        {"policy": "clean"},
        {"policy": "noise", "std": 0.1},
    )
    stream: StreamConfig = StreamConfig()
    targets: Annotated[tuple[Any, ...] | None, Field(strict=False)] = None
    students: Annotated[tuple[_StudentsFile, ...], Field(strict=False, min_length=1)]
    objectives: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = (
        "nll",
        "flops",
        "storage_bytes",
    )
    constraints: dict[str, float] = {}
    conditions: Any = (CLEAN,)
    ood: Any = ()
    search: SearchConfig = SearchConfig()
    latency: LatencyConfig | None = None
    recipe: Recipe = Recipe()
    baseline: BaselineConfig = BaselineConfig()
    twins: TwinsConfig = TwinsConfig()
    finalists: FinalistsConfig = FinalistsConfig()
    seed: int = Field(default=0, ge=0, lt=2**31, description="root of every seed")


class _GivenSpaceFile(_SpaceFile):
    """A space whose teacher is known by its predictions: they are at fixed inputs."""

    teacher: GivenTeacherFile  # type: ignore[assignment]
    views: Annotated[tuple[dict[str, Any], ...], Field(strict=False, min_length=1)] = (
        {"policy": "clean"},
    )


def find_space(name_or_path: str) -> Path:
    """The file of a space given by path or by shipped name.

    Raises:
        ConfigError: neither; the message names the nearest shipped space.
    """
    return find_yaml(name_or_path, shipped_spaces(), "space")


def load_space(
    name_or_path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    modules: Modules | None = None,
) -> SearchSpace:
    """A search space from a YAML file or by the name of a shipped one.

    Args:
        name_or_path: ``"digits_mlp"`` or a path.
        overrides: dotted keys to values that replace the file's: ``{"search.n_trials": 4}``; a
            part in quotes may hold dots: ``{'constraints."accuracy@apgd-0.1"': 0.8}``.
        modules: what builds the teacher's network where its family is ``module``, by the name that
            the space has for it.

    Raises:
        ConfigError: the file or a setting is invalid; names file, key and nearest valid key.
        RegistryError: an unknown dataset, family, method, policy, target, metric or cost.
    """
    path = find_space(str(name_or_path))
    data = read_yaml(path)
    for key, value in (overrides or {}).items():
        # a later override may change what an earlier one brought, which is the caller's
        _override(data, key, deepcopy(value))
    return parse_space(data, str(path), modules)


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    """Set one setting; an entry of a list is counted from 0, and a part in quotes is one name."""
    *parents, last = split_key(key, f"--set {key}")

    holder: Any = data
    for i, parent in enumerate(parents):
        if _has_entry(holder, parent):
            holder = holder[int(parent)]
        elif isinstance(holder, dict):
            holder = holder.setdefault(parent, {})
        else:
            path = ".".join(parents[: i + 1])
            raise ConfigError(f"--set {key}: '{path}' leads nowhere; expected a setting's key")

    if _has_entry(holder, last):
        holder[int(last)] = value
    elif isinstance(holder, dict):
        # The file may have it under its old name, which would be found beside the new one.
        holder.pop(other_name(last), None)
        holder[last] = value
    else:
        raise ConfigError(
            f"--set {key}: '{last}' is inside a single value; expected a setting's key"
        )


def _has_entry(holder: Any, key: str) -> bool:
    is_index = isinstance(holder, list) and key.isdecimal() and len(key) <= _MAX_INDEX_DIGITS
    return is_index and int(key) < len(holder)


def parse_space(data: Mapping[str, Any], where: str, modules: Modules | None = None) -> SearchSpace:
    """Plain data as a search space; ``where`` names the file in messages.

    Raises as ``load_space``.
    """
    file = parse(_GivenSpaceFile if is_given(data) else _SpaceFile, data, where)
    space = _space(file, where, modules)

    for check in CHECKS:
        check(space)

    # A dataset keeps its settings as they were written, so that nothing is known of its names.
    understood = {key: value for key, value in space.resolved.items() if key != "dataset"}
    warn_of_old_names(data, understood)
    return space


def _space(file: _SpaceFile, where: str, modules: Modules | None) -> SearchSpace:
    """Each part of a file under its own name; what must hold between them is not checked yet."""
    DATASETS.find(file.dataset.get("name"), f"{where}: dataset.name")

    teacher = _teacher(file.teacher, where)
    likelihood = teacher.likelihood

    views: list[View] = []
    dtype = file.stream.prediction_dtype
    for i, settings in enumerate(file.views):
        views += parse_views(settings, f"{where}: views[{i}]", file.seed, dtype=dtype)
    names = DEFAULT_TARGETS[likelihood.prediction] if file.targets is None else file.targets
    targets = parse_targets(names, f"{where}: targets")
    conditions = _conditions(file, where)
    outside = _outside(file, where, conditions)

    return SearchSpace(
        name=file.name,
        dataset=file.dataset,
        data=file.data,
        genotype=teacher.genotype,
        method=teacher.method,
        prior=teacher.prior,
        likelihood=likelihood,
        views=tuple(views),
        stream=file.stream,
        targets=targets,
        students=_student_spaces(file.students, where),
        objectives=tuple(objective(name, f"{where}: objectives") for name in file.objectives),
        constraints=file.constraints,
        conditions=conditions,
        outside=outside,
        search=file.search,
        recipe=file.recipe,
        baseline=file.baseline,
        twins=file.twins,
        finalists=file.finalists,
        seed=file.seed,
        source=where,
        resolved=_resolved(file, teacher, targets, conditions, outside),
        given=teacher.given,
        trained_on=_trained_on(file.teacher, teacher.method, where),
        module=_module(file.teacher, teacher.genotype, modules, where),
        calibration=file.teacher.calibration,
        latency=_latency(file),
    )


@dataclass(frozen=True)
class _Teacher:
    """The parts of a space that its teacher's settings give, under their names there."""

    genotype: Genotype | None
    method: MethodConfig
    prior: Prior
    likelihood: Likelihood
    given: GivenTeacher | None = None


def _teacher(file: TeacherFile | GivenTeacherFile, where: str) -> _Teacher:
    if isinstance(file, GivenTeacherFile):
        prior, likelihood = _prior({}, where), _likelihood({}, where)
        return _Teacher(None, file.method, prior, likelihood, file.given)

    return _Teacher(
        teacher_genotype(file, where),
        parse_method(file.method, f"{where}: teacher.method"),
        _prior(file.prior, where),
        _likelihood(file.likelihood, where),
    )


def _module(
    file: TeacherFile | GivenTeacherFile,
    genotype: Genotype | None,
    modules: Modules | None,
    where: str,
) -> ModuleFamily | None:
    """The teacher's family, where it is a user's module."""
    facts = file.module if isinstance(file, TeacherFile) else None
    return bind(genotype, modules, facts, where)


def _trained_on(
    file: TeacherFile | GivenTeacherFile, method: MethodConfig, where: str
) -> TrainedOn | None:
    """What an imported teacher has seen.

    Raises:
        ConfigError: it is no imported one.
    """
    if file.trained_on is not None and method.name != "import":
        raise ConfigError(
            f"{where}: teacher.trained_on: found with the method '{method.name}', expected it with "
            "imported ensembles alone: a teacher that is sampled here sees the training part and "
            "nothing else; remove it"
        )
    return file.trained_on


def _prior(settings: Mapping[str, Any], where: str) -> Prior:
    """The prior that the settings name, gaussian where they name none."""
    key = f"{where}: teacher.prior"
    model = PRIORS.find(settings.get("name", "gaussian"), f"{key}.name")
    prior: Prior = parse(model, settings, key)
    return prior


def _likelihood(settings: Mapping[str, Any], where: str) -> Likelihood:
    """The likelihood that the settings name, categorical where they name none."""
    key = f"{where}: teacher.likelihood"
    model = LIKELIHOODS.find(settings.get("name", "categorical"), f"{key}.name")
    likelihood: Likelihood = parse(model, settings, key)
    return likelihood


def _student_spaces(files: tuple[_StudentsFile, ...], where: str) -> tuple[StudentSpace, ...]:
    spaces = []
    for i, file in enumerate(files):
        key = f"{where}: students[{i}]"
        prefix = "" if len(files) == 1 else f"{i}-{file.family}."
        try:
            space = parse_dimensions(file.family, file.genotype, f"{key}.genotype", prefix)
        except RegistryError as error:
            raise RegistryError(f"{key}.family: {error}") from None
        spaces.append(space)
    return tuple(spaces)


def _conditions(file: _SpaceFile, where: str) -> tuple[Condition, ...]:
    """The conditions of a file: those that it lists, and those that its goals name beside."""
    asked = _asked(file, where, "prediction")
    certified = _asked(file, where, "certificate")
    for text, asker in certified:
        if text == CLEAN:
            raise ConfigError(
                f"{asker}: found no radius, expected one after the metric; write "
                f"{asker.rpartition(' ')[2]}@linf-0.03, for example"
            )
    asked += certified
    for text, asker in asked:
        if is_set_alone(text):
            raise ConfigError(
                f"{asker}: found the set '{text}', which has metrics of inputs from outside alone; "
                f"expected one of these, for example ood_auroc_total@{text}"
            )
    return parse_conditions(file.conditions, f"{where}: conditions", asked)


def _outside(
    file: _SpaceFile, where: str, conditions: tuple[Condition, ...]
) -> tuple[Outside, ...]:
    """The out-of-distribution sets of a file: those that it lists, and those that its goals name.

    Raises:
        ConfigError: a goal names none.
    """
    asked = _asked(file, where, "ood")
    for text, asker in asked:
        if text == CLEAN:
            raise ConfigError(
                f"{asker}: found no set of inputs from outside, expected one after the metric; "
                f"write {asker.rpartition(' ')[2].partition('@')[0]}@permuted, for example"
            )
    return parse_outsides(file.ood, f"{where}: ood", conditions, asked)


def _asked(file: _SpaceFile, where: str, task: LabelMeaning) -> list[tuple[str, str]]:
    """What stands after ``@`` in the goals of a task, with where each is asked for."""
    asked = []
    for key, names in (("objectives", file.objectives), ("constraints", file.constraints)):
        for name in names:
            parsed = parse_name(name)
            if parsed.metric in METRICS and METRICS[parsed.metric].task == task:
                asked.append((parsed.condition, f"{where}: {key}: {name}"))
    return asked


def _resolved(
    file: _SpaceFile,
    teacher: _Teacher,
    targets: tuple[Target, ...],
    conditions: tuple[Condition, ...],
    outside: tuple[Outside, ...],
) -> dict[str, Any]:
    data = file.model_dump(mode="json")
    data["data"] = file.data.to_json()

    if file.teacher.trained_on is None:
        del data["teacher"]["trained_on"]
    if data["teacher"].get("module", ...) is None:
        del data["teacher"]["module"]
    if file.teacher.calibration == "none":
        del data["teacher"]["calibration"]
    if teacher.given is None:
        data["teacher"]["method"] = teacher.method.model_dump(mode="json")
        data["teacher"]["prior"] = teacher.prior.to_json()
        data["teacher"]["likelihood"] = teacher.likelihood.to_json()

    data["targets"] = [target.to_json() for target in targets]
    data["conditions"] = [condition.to_json() for condition in conditions]
    data["ood"] = [each.to_json() for each in outside if each.is_listed]
    if not data["ood"]:
        del data["ood"]

    latency = _latency(file)
    if latency is None:
        del data["latency"]
    else:
        data["latency"] = latency.model_dump(mode="json")
    return data


def _latency(file: _SpaceFile) -> LatencyConfig | None:
    """How students are timed, where the space says so or bounds or minimizes their latency."""
    is_asked = TIMED_COSTS.keys() & {*file.objectives, *file.constraints}
    return file.latency or (LatencyConfig() if is_asked else None)
