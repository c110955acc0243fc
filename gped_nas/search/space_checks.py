"""What must hold between the parts of a search space, each of which was read without an error.

``CHECKS`` lists them in the order in which a user hears of them. A check takes the space and raises
a ``ConfigError`` that names the file, the setting, what was found and what was expected.
"""

import math
from collections.abc import Callable

from gped_nas.data.views import View
from gped_nas.distill.feed import check_update
from gped_nas.errors import ConfigError, nearest
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.certify.networks import families_with_bounds
from gped_nas.evaluate.certify.radius import states_radius
from gped_nas.evaluate.certify.relaxation import RELAXATIONS as ACTIVATIONS_WITH_BOUNDS
from gped_nas.evaluate.measured import parse_name
from gped_nas.io import canonical_json
from gped_nas.models.base import FAMILIES
from gped_nas.models.labels import COSTS, COUNTED_COSTS
from gped_nas.models.module import FAMILY
from gped_nas.posterior.base import METHODS, ChainConfig, MethodConfig, ReadingConfig
from gped_nas.posterior.likelihoods import Prediction
from gped_nas.search.objectives import (
    check_available,
    check_objectives,
    check_possible,
    objective,
    task_of,
)
from gped_nas.search.region_checks import region_can_be_met
from gped_nas.search.space import FINITE_SAMPLERS, SearchSpace
from gped_nas.targets.base import LearnedTarget, QuantileTarget, StatisticTarget

DEFAULT_TARGETS: dict[Prediction, tuple[str, ...]] = {
    "log_prob": ("predictive", "expected_entropy"),
    "normal": ("predictive_normal",),
}
"""What students are distilled for where a space names nothing, by what its likelihood predicts."""


def _name_is_a_folder(space: SearchSpace) -> None:
    name = space.name
    is_one_part = name.isprintable() and "/" not in name and not name.startswith(".")
    if not is_one_part or not any(ch.isalnum() for ch in name):
        raise ConfigError(
            f"{space.source}: name: found {name!r}, expected a name for a folder: no '/', no "
            "leading dot"
        )


def _modules_are_teachers(space: SearchSpace) -> None:
    for i, student in enumerate(space.students):
        if student.family == FAMILY:
            raise ConfigError(
                f"{space.source}: students[{i}].family: found '{FAMILY}', which is a teacher's "
                "network: it can be neither pruned nor stored; choose mlp, cnn or resnet"
            )


def _method_needs_the_gradient_alone(space: SearchSpace) -> None:
    method: MethodConfig = space.method
    while space.module is not None:
        if METHODS[method.name].looks_inside:
            raise ConfigError(
                f"{space.source}: teacher.method.name: found {method.name}, which acts on layers "
                "or hidden units of the teacher, but of a module its parameters alone are known; "
                "choose a method that needs the gradient alone, such as sghmc or deep_ensemble"
            )
        if not isinstance(method, ReadingConfig):
            return
        method = method.of


def _targets_fit_the_likelihood(space: SearchSpace) -> None:
    likelihood = space.likelihood
    if space.targets[0].prediction != likelihood.prediction:
        raise ConfigError(
            f"{space.source}: targets: found {[target.name for target in space.targets]}, which "
            "are for another kind of label than the teacher's likelihood "
            f"'{likelihood.name}'; expected {list(DEFAULT_TARGETS[likelihood.prediction])}"
        )


def _method_takes_the_likelihood(space: SearchSpace) -> None:
    method, likelihood = space.method, space.likelihood
    while isinstance(method, ReadingConfig):
        method = method.of
    if METHODS[method.name].needs_concave and not likelihood.is_concave:
        raise ConfigError(
            f"{space.source}: teacher.method.name: found '{method.name}' with the likelihood "
            f"'{likelihood.name}', expected one whose noise is given: its closed form needs a "
            "log-likelihood that is concave in the network's outputs; set teacher.likelihood.name "
            "to gaussian, or take a method that needs the gradient alone, such as sghmc"
        )


def _half_bytes_are_for_log_probabilities(space: SearchSpace) -> None:
    dtype, likelihood = space.stream.prediction_dtype, space.likelihood
    if dtype != "float32" and likelihood.prediction != "log_prob":
        raise ConfigError(
            f"{space.source}: stream.prediction_dtype: found '{dtype}', expected 'float32': the "
            f"error of means and variances (likelihood '{likelihood.name}') in half the bytes is "
            "not bounded"
        )


def _weights_are_of_targets_with_a_loss(space: SearchSpace) -> None:
    with_loss = [target.name for target in space.targets if isinstance(target, LearnedTarget)]
    for name in space.recipe.target_weights:
        if name not in with_loss:
            raise ConfigError(
                f"{space.source}: recipe.target_weights.{name}: not among the "
                f"targets{nearest(name, with_loss)}"
            )


def _update_fits_the_targets(space: SearchSpace) -> None:
    check_update(space.targets, space.recipe.update, f"{space.source}: recipe.update")


def _labels_are_known_somewhere(space: SearchSpace) -> None:
    weight = space.largest_label_weight
    if weight and not any(_knows_labels(view) for view in space.views):
        policies = ", ".join(view.policy for view in space.views)
        raise ConfigError(
            f"{space.source}: recipe.label_weight: found {weight:g} with views ({policies}) at "
            "which no label is known, expected 0; set it to 0, or add the view {policy: clean}"
        )


def _knows_labels(view: View) -> bool:
    return view.keeps_label and view.part != "unlabeled"


def _online_asks_a_chain(space: SearchSpace) -> None:
    if space.recipe.mode == "online" and not isinstance(space.method, ChainConfig):
        raise ConfigError(
            f"{space.source}: recipe.mode: found online, but method '{space.method.name}' has no "
            "more posterior samples to give; use mode cached"
        )


def _online_answers_where_it_is_asked(space: SearchSpace) -> None:
    for view in space.views:
        if space.recipe.mode == "online" and view.answers == "clean":
            raise ConfigError(
                f"{space.source}: recipe.mode: found online, but view '{view.policy}' has answers: "
                "clean, which are stored ones; use mode cached, or leave answers out"
            )


def _nothing_asks_samples_that_are_not_stored(space: SearchSpace) -> None:
    if space.recipe.stream == "stored":
        return

    askers = []
    if space.calibration != "none":
        askers.append(f"teacher.calibration '{space.calibration}'")
    askers += [f"view '{view.policy}'" for view in space.views if view.num_samples]
    of_samples = (QuantileTarget, StatisticTarget)
    askers += [f"target '{t.name}'" for t in space.targets if isinstance(t, of_samples)]
    for name in space.goal_names:
        if name not in COSTS and METRICS[parse_name(name).metric].needs_samples:
            askers.append(f"'{name}' among objectives and constraints")
    if askers:
        raise ConfigError(
            f"{space.source}: recipe.stream: found none with {' and '.join(askers)}, which need "
            "single posterior samples, expected stored; set it to stored, or remove what needs them"
        )


def weighs_chains(method: MethodConfig) -> bool:
    """Whether stacking weighs a method's chains; else its samples are members, weighed each.

    Samples of one chain are draws of one law: weights for each would fit the noise of labels.
    """
    return METHODS[method.name].origin in ("chain", "fitted", "copied")


def _stacking_has_something_to_weigh(space: SearchSpace) -> None:
    method = space.method
    if space.calibration != "stacking":
        return
    if weighs_chains(method) and getattr(method, "chains", 1) == 1:
        raise ConfigError(
            f"{space.source}: teacher.calibration: found stacking with one chain of "
            f"'{method.name}', expected several, which it weighs; set chains of the method, or "
            "temperature here"
        )
    if METHODS[method.name].origin == "optimized" and method.count({}) == 1:
        raise ConfigError(
            f"{space.source}: teacher.calibration: found stacking with method '{method.name}', "
            "which has one sample, expected several; set it to temperature or none"
        )


def _stacking_knows_the_samples(space: SearchSpace) -> None:
    if space.calibration == "stacking" and space.recipe.mode == "online":
        raise ConfigError(
            f"{space.source}: teacher.calibration: found stacking with recipe.mode online, whose "
            "chain is not among those that are weighed; use temperature, or mode cached"
        )


def _fresh_views_can_be_drawn(space: SearchSpace) -> None:
    recipe, where = space.recipe, space.source
    if recipe.draw_views == "once":
        return
    if recipe.mode == "online":
        raise ConfigError(
            f"{where}: recipe.draw_views: found fresh with mode online, which draws anew in each "
            "pass by itself, expected once; leave draw_views out"
        )

    for view in space.views:
        if view.num_samples:
            raise ConfigError(
                f"{where}: recipe.draw_views: found fresh with policy '{view.policy}', which asks "
                "the teacher where to move and draws nothing, expected once; leave draw_views or "
                "that view out"
            )
        if view.answers == "own" and not view.is_untouched and recipe.update != "averaged":
            raise ConfigError(
                f"{where}: recipe.draw_views: found fresh with update {recipe.update} and the "
                f"teacher's own answers at '{view.policy}', expected once: they would be averages; "
                "set answers: clean in that view, or update: averaged"
            )


def _fresh_views_differ(space: SearchSpace) -> None:
    if space.recipe.draw_views == "once":
        return

    without_draw = set()
    for view in space.views:
        undrawn = canonical_json({**view.key(), "settings": view.settings_without_draw})
        if undrawn in without_draw:
            raise ConfigError(
                f"{space.source}: views: found several draws of policy '{view.policy}' with "
                "recipe.draw_views: fresh, expected one: each step draws anew; remove draws"
            )
        without_draw.add(undrawn)


def _constraints_are_known_and_finite(space: SearchSpace) -> None:
    for name, bound in space.constraints.items():
        objective(name, f"{space.source}: constraints")
        if not math.isfinite(bound):
            raise ConfigError(
                f"{space.source}: constraints.{name}: found {bound}, expected a finite bound"
            )


def _objectives_have_a_front(space: SearchSpace) -> None:
    names = [goal.name for goal in space.objectives]
    check_objectives(names, f"{space.source}: objectives")


def _metrics_can_be_measured(space: SearchSpace) -> None:
    names = space.goal_names
    check_available(
        names,
        space.targets,
        f"{space.source}: objectives and constraints",
        conditions=[condition.name for condition in space.conditions],
        outside=[each.name for each in space.outside],
        radii=space.radii,
    )


def _a_radius_is_no_set(space: SearchSpace) -> None:
    for outside in space.outside:
        if states_radius(outside.condition):
            raise ConfigError(
                f"{space.source}: ood: found '{outside.name}', which leaves inputs as they are, so "
                "that none is from outside; list it in conditions"
            )


def _students_have_bounds(space: SearchSpace) -> None:
    if not space.radii:
        return

    asker = f"with the condition '{space.radii[0]}', under which answers are proven"
    families = families_with_bounds()
    for i, student in enumerate(space.students):
        where = f"{space.source}: students[{i}]"
        if student.family not in families:
            raise ConfigError(
                f"{where}.family: found '{student.family}', which has no bounds, {asker}; expected "
                f"one of {', '.join(families)}; take one of these, or remove the condition"
            )
        for dimension in student.dimensions:
            words = dimension.choices if dimension.key == "activation" else ()
            without = [str(word) for word in words if word not in ACTIVATIONS_WITH_BOUNDS]
            if without:
                raise ConfigError(
                    f"{where}.genotype.activation: found '{without[0]}', which has no bounds, "
                    f"{asker}; expected {' or '.join(ACTIVATIONS_WITH_BOUNDS)}; take these, or "
                    "remove the condition"
                )


def _constraints_can_hold(space: SearchSpace) -> None:
    check_possible(space.constraints, task_of(space.targets), f"{space.source}: constraints")


def _certified_training_is_of_classes(space: SearchSpace) -> None:
    if space.recipe.certify and space.likelihood.prediction != "log_prob":
        raise ConfigError(
            f"{space.source}: recipe.certify: found {space.recipe.certify:g} with real labels, "
            "expected 0: its bound is of the cross-entropy of classes; leave it out"
        )


def _a_listed_space_ends(space: SearchSpace) -> None:
    if space.search.sampler in FINITE_SAMPLERS and not space.is_finite:
        raise ConfigError(
            f"{space.source}: search.sampler: found '{space.search.sampler}', which lists every "
            "genotype, but a range is a float range; use costs_known, tpe or random, or turn the "
            "float range into choices"
        )


def _the_sampler_can(space: SearchSpace) -> None:
    where, sampler = f"{space.source}: search.sampler", space.search.sampler
    if sampler == "costs_known" and all(goal.name in COUNTED_COSTS for goal in space.objectives):
        raise ConfigError(
            f"{where}: found 'costs_known' with objectives that all follow from the genotype, "
            "expected one that is measured, which it learns; add one, such as nll, or use nsga2"
        )
    if sampler in ("gp", "qmc"):
        partial = _partial_value(space)
        if partial:
            raise ConfigError(
                f"{where}: found '{sampler}', which draws at random what only some genotypes have, "
                f"here {partial}, expected values that all have; use costs_known or tpe, or give "
                "all layers one range"
            )


def _partial_value(space: SearchSpace) -> str:
    """A value that some genotypes have and others lack; empty where there is none."""
    if len(space.students) > 1:
        return f"{space.students[0].prefix}{space.students[0].dimensions[0].name}"
    (student,) = space.students
    least = {d.key: d.extremes()[0] for d in student.dimensions if d.index is None}
    for dimension in student.dimensions:
        count = least.get(FAMILIES[student.family].counts.get(dimension.key, ""))
        if dimension.index is not None and isinstance(count, int) and dimension.index >= count:
            return dimension.name
    return ""


CHECKS: tuple[Callable[[SearchSpace], None], ...] = (
    _name_is_a_folder,
    _modules_are_teachers,
    _method_needs_the_gradient_alone,
    _targets_fit_the_likelihood,
    _method_takes_the_likelihood,
    _half_bytes_are_for_log_probabilities,
    _weights_are_of_targets_with_a_loss,
    _update_fits_the_targets,
    _labels_are_known_somewhere,
    _online_asks_a_chain,
    _online_answers_where_it_is_asked,
    _nothing_asks_samples_that_are_not_stored,
    _stacking_has_something_to_weigh,
    _stacking_knows_the_samples,
    _fresh_views_can_be_drawn,
    _fresh_views_differ,
    _constraints_are_known_and_finite,
    _objectives_have_a_front,
    _metrics_can_be_measured,
    _a_radius_is_no_set,
    _students_have_bounds,
    _constraints_can_hold,
    region_can_be_met,
    _certified_training_is_of_classes,
    _a_listed_space_ends,
    _the_sampler_can,
)
