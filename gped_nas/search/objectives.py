"""Objectives and constraints by name: what is better, and where the worst counted point lies."""

import math
from collections.abc import Collection, Mapping, Sequence

from gped_nas.data.base import Task
from gped_nas.errors import ConfigError, RegistryError, nearest
from gped_nas.evaluate.base import METRICS, End, LabelFacts, Metric
from gped_nas.evaluate.certify.radius import certificate_metrics, states_radius
from gped_nas.evaluate.conditions import Condition
from gped_nas.evaluate.measured import CLEAN, VALIDATION, parse_name
from gped_nas.evaluate.outside import Outside
from gped_nas.evaluate.teacher import with_derived
from gped_nas.models.labels import COSTS
from gped_nas.search.goals import MetricWords, Objective, label_under
from gped_nas.targets.base import TARGETS, Target


def registered_words() -> dict[str, MetricWords]:
    """What is to be said of every registered metric, by name."""
    return {
        name: MetricWords(metric.label, metric.direction, metric.unit)
        for name, metric in METRICS.items()
    }


def measured_words(asked: Collection[str]) -> dict[str, MetricWords]:
    """``registered_words`` of the metrics of always, and of those that are asked for."""
    words = registered_words()
    return {name: words[name] for name in words if METRICS[name].always or name in asked}


def asked_metrics(names: Sequence[str], condition: str | None = None) -> frozenset[str]:
    """The metrics among the names of objectives and constraints.

    Args:
        names: of metrics, alone or ``metric@condition``, and of costs.
        condition: under which they are asked for; under any if None.
    """
    metrics = set()
    for name in names:
        key = parse_name(name)
        if name not in COSTS and condition in (None, key.condition):
            metrics.add(key.metric)
    return frozenset(metrics)


def recorded_metrics(
    names: Sequence[str], outside: Sequence[Outside], conditions: Sequence[Condition] = ()
) -> frozenset[str]:
    """The metrics that a study records beside those of always.

    Args:
        names: of objectives and constraints.
        outside: its out-of-distribution sets.
        conditions: of its space.
    """
    recorded = asked_metrics(names)
    if any(map(states_radius, conditions)):
        recorded |= certificate_metrics()
    for each in outside:
        recorded |= outside_metrics(names, each)
    return recorded


def outside_metrics(names: Sequence[str], outside: Outside) -> frozenset[str]:
    """The metrics that are measured at an out-of-distribution set: all of it if it is listed.

    Args:
        names: of objectives and constraints, which decide where it is not.
        outside: the set.
    """
    if not outside.is_listed:
        return asked_metrics(names, outside.name)
    return frozenset(name for name, metric in METRICS.items() if metric.task == "ood")


def objective(name: str, where: str) -> Objective:
    """The objective called ``name``: a cost, or a registered metric, alone or ``metric@condition``.

    Raises:
        RegistryError: neither.
    """
    if name in COSTS:
        return Objective(name, "minimize", "cost", COSTS[name])

    key = parse_name(name)
    if key.metric not in METRICS or key.part != VALIDATION:
        raise RegistryError(
            f"{where}: unknown metric or cost '{name}'{nearest(name, [*METRICS, *COSTS])}"
        )
    metric = METRICS[key.metric]
    return Objective(name, metric.direction, "metric", label_under(metric.label, key.condition))


def check_objectives(names: Sequence[str], where: str) -> None:
    """Refuse what the front cannot be about.

    Raises:
        ConfigError: a name twice, or a metric without a worst value.
    """
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}: found {list(names)}, expected none twice")

    metrics = [name for name in names if name not in COSTS]
    for name in metrics:
        if METRICS[parse_name(name).metric].worst is None:
            raise ConfigError(
                f"{where}: metric '{name}' has no worst value, so it can be recorded but be no "
                "objective: its hypervolume has no end; choose another one, or register it with "
                "worst= and best="
            )


def task_of(targets: Sequence[Target]) -> Task:
    """What labels are, by what the targets average."""
    return "classification" if targets[0].prediction == "log_prob" else "regression"


def check_available(
    names: Sequence[str],
    targets: Sequence[Target],
    where: str,
    conditions: Collection[str] = (CLEAN,),
    outside: Collection[str] = (),
    radii: Collection[str] = (),
) -> None:
    """Refuse an objective or constraint on a metric that these targets cannot give.

    Args:
        names: objectives and constraints.
        targets: what is distilled.
        where: file and key, for messages.
        conditions: under which students are measured.
        outside: names of the out-of-distribution sets at which they are.
        radii: those of the conditions that state a radius.

    Raises:
        ConfigError: the metric judges labels of another kind, reads a target that is not distilled,
            or is asked under a condition, or at a set, that the space does not list, or at one that
            it is not measured at.
    """
    task = task_of(targets)
    available = {target.name for target in with_derived(targets)}

    for name in names:
        if name in COSTS:
            continue

        key = parse_name(name)
        metric = METRICS[key.metric]
        if task not in metric.tasks:
            usual = [other for other in METRICS.values() if other.always]
            fitting = ", ".join(other.name for other in usual if task in other.tasks)
            raise ConfigError(
                f"{where}: '{name}' is not defined for {task}; there are {fitting}, and costs"
            )

        missing = metric.read_of_student(task) - available
        # A teacher of classes always has its E[H].
        missing |= metric.read_of_teacher(task) - available - {"expected_entropy"}
        if missing:
            roots = sorted(_find_roots(missing, available))
            needed = ", ".join(f"'{target}'" for target in roots)
            raise ConfigError(f"{where}: '{name}' needs {needed} among the targets")

        if metric.task == "ood" and key.condition not in outside:
            raise ConfigError(
                f"{where}: '{name}' is measured at a set of inputs from outside; add it to ood, "
                f"found {list(outside)}"
            )
        if metric.task != "ood" and key.condition not in conditions:
            raise ConfigError(
                f"{where}: '{name}' is measured under the condition '{key.condition}'; add it to "
                f"conditions, found {list(conditions)}"
            )
        _check_radius(name, metric, radii, where)


def _check_radius(name: str, metric: Metric, radii: Collection[str], where: str) -> None:
    """Refuse a certificate without a radius, and anything else within one."""
    key = parse_name(name)
    if metric.task == "certificate" and key.condition not in radii:
        raise ConfigError(
            f"{where}: '{name}' is proven within a radius, and found "
            f"'{key.condition}', which states none; write {key.metric}@linf-0.03, for example"
        )
    if metric.task != "certificate" and key.condition in radii:
        raise ConfigError(
            f"{where}: '{name}' is measured at inputs as they are, which '{key.condition}' leaves "
            f"alone; write {key.metric}, or certified_accuracy@{key.condition}"
        )


def check_possible(constraints: Mapping[str, float], task: Task, where: str) -> None:
    """Refuse a constraint that no student can meet, however good it is.

    Args:
        constraints: bounds by name.
        task: what labels are.
        where: file and key, for messages.

    Raises:
        ConfigError: the bound is beyond what the metric can be.
    """
    for name, bound in constraints.items():
        if name in COSTS:
            continue

        limit = METRICS[parse_name(name).metric].bounds.get(task)
        if limit is None:
            continue
        if violations({name: limit}, {name: bound})[name] > 0:
            raise ConfigError(
                f"{where}.{name}: no student can meet {describe_constraint(name, bound)}: the best "
                f"value there is is {limit:g}; correct the bound"
            )


def check_measurable(
    names: Sequence[str], where: str, *, has_weights: bool, num_samples: int, num_examples: int
) -> None:
    """Refuse an objective or constraint on a metric that this teacher cannot be asked for.

    Args:
        names: objectives and constraints.
        where: file and key, for messages.
        has_weights: whether the teacher can be asked at inputs that a condition makes.
        num_samples: of its posterior samples.
        num_examples: of the part of the dataset where students are measured.

    Raises:
        ConfigError: the metric needs what the teacher or the dataset has not.
    """
    for name in names:
        if name in COSTS:
            continue
        key = parse_name(name)
        metric = METRICS[key.metric]

        asks_teacher = metric.needs_teacher or metric.needs_samples
        if key.condition != CLEAN and asks_teacher and not has_weights:
            raise ConfigError(
                f"{where}: '{name}' compares with the teacher under the condition "
                f"'{key.condition}', but the teacher is known by its predictions alone, at inputs "
                "as they are; choose another metric, or import its weights"
            )
        if metric.least_examples > num_examples:
            raise ConfigError(
                f"{where}: '{name}' needs {metric.least_examples} examples, and validation has "
                f"{num_examples}; choose another metric, or a larger part"
            )
        if metric.needs_spread and num_samples == 1:
            raise ConfigError(
                f"{where}: '{name}' means nothing beside a teacher of one posterior sample, which "
                "has no spread; choose another metric, or a method that samples"
            )


def _find_roots(missing: Collection[str], available: Collection[str]) -> set[str]:
    """What must be distilled to have these targets: of derived ones what they are computed from."""
    roots: set[str] = set()
    for name in missing:
        target = TARGETS[name]
        required = set(target.requires) - set(available)
        if target.kind == "derived" and required:
            roots |= required
        else:
            roots.add(name)
    return roots


def violations(values: Mapping[str, float], constraints: Mapping[str, float]) -> dict[str, float]:
    """By how much each constraint is broken; at most 0 where it holds.

    Args:
        values: metrics and costs by name.
        constraints: bounds by name: at most, and at least for a metric that is maximized.
    """
    excess = {}
    for name, bound in constraints.items():
        if _is_maximized(name):
            excess[name] = bound - values[name]
        else:
            excess[name] = values[name] - bound
    return excess


def describe_constraint(name: str, bound: float) -> str:
    """``"storage_bytes <= 200000"``."""
    sign = ">=" if _is_maximized(name) else "<="
    return f"{name} {sign} {bound:g}"


def _is_maximized(name: str) -> bool:
    metric = parse_name(name).metric
    return metric in METRICS and METRICS[metric].direction == "maximize"


def axis_ends(
    goal: Objective,
    facts: LabelFacts,
    smallest: Mapping[str, float],
    largest: Mapping[str, float],
) -> tuple[float, float]:
    """The best and the worst value of an objective.

    A point must beat the worst one to count in the hypervolume. A metric says its own, see
    ``Metric.worst``. A cost's are those of the space's smallest and largest genotype.

    Args:
        goal: the objective.
        facts: what a metric's ends may depend on.
        smallest, largest: costs of the space's smallest and largest genotype.

    Raises:
        ConfigError: the ends of a metric are equal, not finite, or the wrong way round.
    """
    if goal.kind == "cost":
        return float(smallest[goal.name]), float(largest[goal.name])

    metric = METRICS[parse_name(goal.name).metric]
    best = _end(metric.best, facts)
    worst = _end(metric.worst, facts)

    sign = -1 if metric.direction == "maximize" else 1
    is_finite = math.isfinite(best) and math.isfinite(worst)
    if not is_finite or sign * best >= sign * worst:
        raise ConfigError(
            f"objective '{goal.name}': found best {best:g} and worst {worst:g}, expected finite "
            f"ends that differ in the direction '{metric.direction}'; choose another objective, or "
            "correct worst= and best= where the metric is registered"
        )
    return best, worst


def _end(end: End, facts: LabelFacts) -> float:
    assert end is not None, "check_objectives refuses a metric without ends"
    return float(end(facts) if callable(end) else end)
