"""Which genotypes come next: samplers, their seeds, and the list of a finite space."""

import contextlib
import warnings
from collections.abc import Iterable, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from gped_nas import rng
from gped_nas.io import canonical_json
from gped_nas.models.base import Genotype
from gped_nas.search.dimensions import Choice
from gped_nas.search.space import SearchSpace
from gped_nas.search.trials import is_its_fault, read_record


def sampler_seed(root: int, asker: int, num_trials: int) -> int:
    """The seed of the sampler for the next population.

    It depends on the number of trials, since one seed for all would repeat the first draws; and on
    the asker, since two of them may ask at the same number. The first asker is left out, so that
    studies with one asker draw as they did before there were several.
    """
    path: tuple[str | int, ...] = ("sampler", num_trials)
    if asker != 0:
        path = (*path, "asker", asker)
    return rng.seed(root, *path) % 2**32


def make_sampler(space: SearchSpace, seed: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler that a space names.

    For what is queued, by a finite sampler or by ``costs_known``, it draws nothing.
    """
    with warnings.catch_warnings():
        # some of Optuna's may get other arguments one day
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _make_sampler(space, seed)


def _make_sampler(space: SearchSpace, seed: int) -> optuna.samplers.BaseSampler:
    name = space.search.sampler
    population_size = max(2, min(50, space.search.n_trials // 4))
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=population_size)
    if name == "nsga3":
        return optuna.samplers.NSGAIIISampler(seed=seed, population_size=population_size)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if name == "qmc":
        # one sequence for the whole study, whose place in it Optuna keeps
        return optuna.samplers.QMCSampler(
            scramble=True,
            seed=rng.seed(space.sampler_root, "qmc") % 2**32,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
        )
    return optuna.samplers.RandomSampler(seed=seed)


def undrawn(
    space: SearchSpace, root: int, trials: Iterable[FrozenTrial]
) -> list[dict[str, Choice]]:
    """The parameters of a finite space that no trial has drawn, in the sampler's order.

    One that failed by itself would fail again; one whose run was interrupted is listed again.
    """
    drawn_before = _genotypes_of(
        space,
        (
            trial
            for trial in trials
            if trial.state != TrialState.FAIL or is_its_fault(read_record(trial).reason)
        ),
    )
    everything = list(space.enumerate())
    if space.search.sampler == "brute_force":
        order = rng.seed(root, "brute_force")
        everything.sort(key=lambda params: rng.seed(order, canonical_json(params)))
    return [params for params in everything if space.genotype_of(params) not in drawn_before]


def _genotypes_of(space: SearchSpace, trials: Iterable[FrozenTrial]) -> set[Genotype]:
    genotypes = set()
    for trial in trials:
        params = {**trial.params, **trial.system_attrs.get("fixed_params", {})}
        # What another program queued may give no genotype, or none yet.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            genotypes.add(space.genotype_of(params))
    return genotypes


def next_trainings(
    space: SearchSpace,
    listed: Sequence[dict[str, Choice]],
    num: int,
    trials: Iterable[FrozenTrial],
) -> tuple[list[dict[str, Choice]], list[dict[str, Choice]]]:
    """The first genotypes of a list that are trainings of their own, and the rest of the list.

    Those whose student another trial has meanwhile, stored as a variant, are dropped. Those that a
    training of these will answer stay in the list, for it may yet be refused.

    Args:
        space: of the genotypes.
        listed: their parameters.
        num: how many are wanted.
        trials: all trials of the study.
    """
    is_over = (TrialState.COMPLETE, TrialState.PRUNED)
    answered = _genotypes_of(space, (trial for trial in trials if trial.state in is_over))
    queued: list[dict[str, Choice]] = []
    rest: list[dict[str, Choice]] = []
    trained = set()
    for i, params in enumerate(listed):
        if len(queued) == num:
            return queued, [*rest, *listed[i:]]
        if space.genotype_of(params) in answered:
            continue

        training = space.training_of(params)
        if training in trained:
            rest.append(params)
        else:
            trained.add(training)
            queued.append(params)
    return queued, rest


def draw_at_random(space: SearchSpace, num: int) -> list[Genotype]:
    """Genotypes drawn at random, in memory; to look at a space."""
    seed = rng.seed(space.seed, "sample") % 2**32
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.draw(study.ask()) for _ in range(num)]
