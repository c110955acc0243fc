"""Which sampler a search has whose space leaves it to us, and why."""

from dataclasses import dataclass, replace

from gped_nas.models.labels import COUNTED_COSTS
from gped_nas.search.counting import count_genotypes
from gped_nas.search.dimensions import Dimension, StudentSpace
from gped_nas.search.proposing.candidates import DTYPE
from gped_nas.search.space import Sampler, SearchSpace

_MOST_MEASURED = 3
"""Measured objectives up to which their models are few, and places show how they trade."""
_MOST_DIMENSIONS = 32
"""Ranges up to which a Gaussian process learns from a few dozen students."""


@dataclass(frozen=True)
class Chosen:
    """A sampler.

    Attributes:
        name: of it.
        why: it was chosen, for people; empty where the space names it.
    """

    name: Sampler
    why: str = ""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a study says of it; nothing where the space names it."""
        return (f"Genotypes were proposed by {self.name}: {self.why}.",) if self.why else ()


def choose_sampler(space: SearchSpace, n_trials: int, *, is_of_before: bool = False) -> Chosen:
    """The sampler of a search of so many trials; the space's own unless that is ``auto``.

    Args:
        space: the search space.
        n_trials: finished trials wanted.
        is_of_before: whether the study was begun before there was a choice; it goes on as it began.
    """
    if space.search.sampler != "auto":
        return Chosen(space.search.sampler)
    if is_of_before:
        return Chosen("tpe", "the study was begun when it was the default")

    num_trainings = _num_trainings(space)
    if num_trainings is not None and num_trainings <= n_trials:
        return Chosen(
            "brute_force",
            f"with {n_trials} trials, all {num_trainings} trainings of the space can be made",
        )

    measured = [goal.name for goal in space.objectives if goal.name not in COUNTED_COSTS]
    if not measured:
        return Chosen("nsga2", "every objective follows from the genotype, so that none is learned")
    if len(measured) > _MOST_MEASURED:
        return Chosen(
            "nsga3", f"{len(measured)} objectives are measured, more than {_MOST_MEASURED}"
        )

    num_dimensions = sum(len(_free(student)) for student in space.students)
    if num_dimensions > _MOST_DIMENSIONS:
        return Chosen("tpe", f"the space has {num_dimensions} ranges, more than {_MOST_DIMENSIONS}")
    size = "more genotypes than trials" if num_trainings is None else f"{num_trainings:,} trainings"
    return Chosen(
        "costs_known",
        f"the space has {size}, {n_trials} are wanted, and what they cost is known before",
    )


def with_chosen_sampler(
    space: SearchSpace, n_trials: int, *, is_of_before: bool = False
) -> SearchSpace:
    """The space with the sampler that a search has. Args as ``choose_sampler``."""
    sampler = choose_sampler(space, n_trials, is_of_before=is_of_before).name
    return replace(space, search=space.search.model_copy(update={"sampler": sampler}))


def _num_trainings(space: SearchSpace) -> int | None:
    """How many trainings a finite space holds; None of any other."""
    if not space.is_finite:
        return None
    if not space.search.every_dtype:
        return space.num_genotypes

    # one training answers for all storage types
    students = []
    for student in space.students:
        dimensions = []
        for dimension in student.dimensions:
            if dimension.key == DTYPE:
                dimension = Dimension(DTYPE, "fixed", choices=dimension.choices[:1])
            dimensions.append(dimension)
        students.append(replace(student, dimensions=tuple(dimensions)))
    return count_genotypes(students)


def _free(student: StudentSpace) -> list[Dimension]:
    return [dimension for dimension in student.dimensions if dimension.kind != "fixed"]
