"""Which genotypes come next: samplers, their seeds, and the list of a finite space."""

import contextlib
from collections.abc import Iterable

import optuna
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
    """The Optuna sampler that a space names; a finite one draws nothing itself."""
    name = space.search.sampler
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "nsga2":
        population_size = max(2, min(50, space.search.n_trials // 4))
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=population_size)
    return optuna.samplers.RandomSampler(seed=seed)


def undrawn(
    space: SearchSpace, root: int, trials: Iterable[FrozenTrial]
) -> list[dict[str, Choice]]:
    """The parameters of a finite space that no trial has drawn, in the sampler's order.

    One that failed by itself would fail again; one whose run was interrupted is listed again.
    """
    drawn_before: set[Genotype] = set()
    for trial in trials:
        if trial.state != TrialState.FAIL or is_its_fault(read_record(trial).reason):
            params = {**trial.params, **trial.system_attrs.get("fixed_params", {})}
            # What another program queued may give no genotype, or none yet.
            with contextlib.suppress(ValueError, TypeError, KeyError):
                drawn_before.add(space.genotype_of(params))

    everything = list(space.enumerate())
    if space.search.sampler == "brute_force":
        order = rng.seed(root, "brute_force")
        everything.sort(key=lambda params: rng.seed(order, canonical_json(params)))
    return [params for params in everything if space.genotype_of(params) not in drawn_before]


def draw_at_random(space: SearchSpace, num: int) -> list[Genotype]:
    """Genotypes drawn at random, in memory; to look at a space."""
    seed = rng.seed(space.seed, "sample") % 2**32
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.draw(study.ask()) for _ in range(num)]
