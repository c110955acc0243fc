"""The recipe that a study trains by: what its space leaves open is decided once and written down.

The precision of products is what the device is good at. The step size is what a short probe finds
best on a few genotypes, drawn from the space by its seed alone. A study that goes on, on whatever
machine, takes what its first run decided.
"""

from math import isfinite

from gped_nas.api.labels import describe_labels
from gped_nas.api.lessons import validation_set
from gped_nas.api.teacher import Teacher
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.precision import decided
from gped_nas.distill.probe import NUM_STUDENTS, Probe, probe
from gped_nas.distill.recipe import Recipe
from gped_nas.search.drawing import draw_at_random
from gped_nas.search.ledger import Ledger
from gped_nas.search.space import SearchSpace


def decide_recipe(ledger: Ledger, teacher: Teacher, data: DistillationSet) -> Recipe:
    """The space's recipe with nothing left to be decided.

    Args:
        ledger: of the study; what is decided is written into it.
        teacher: whom students imitate.
        data: what they learn from.

    Raises:
        Interrupted: the session said stop.
    """
    space, device = teacher.space, teacher.session.device
    recipe = space.recipe
    if recipe.precision == "auto":
        precision = ledger.document.precision
        if precision is None:
            precision = decided(recipe, space.corners(), data, device).precision
            ledger.change(precision=precision)
        recipe = recipe.model_copy(update={"precision": precision})

    if recipe.lr_probe:
        lr = ledger.document.lr
        if lr is None:
            probed = probe_step_sizes(teacher, data, recipe)
            lr = probed.lr
            ledger.change(lr=lr, lr_losses=_finite(probed))
        recipe = with_step_size(recipe, float(lr))
    return recipe


def probe_step_sizes(teacher: Teacher, data: DistillationSet, recipe: Recipe) -> Probe:
    """What a few students of the space make of each step size that is to be tried.

    Raises:
        Interrupted: the session said stop.
    """
    space, session = teacher.space, teacher.session
    genotypes = list(dict.fromkeys(draw_at_random(space, NUM_STUDENTS)))
    return probe(
        recipe,
        genotypes,
        data,
        validation_set(teacher, data.layout),
        seed=space.seed,
        device=session.device,
        progress=session.progress,
        should_stop=session.should_stop,
    )


def with_step_size(recipe: Recipe, lr: float) -> Recipe:
    """The recipe with this step size, and nothing to be tried."""
    return recipe.model_copy(update={"lr": lr, "lr_probe": ()})


def training_notes(ledger: Ledger, space: SearchSpace, data: DistillationSet) -> tuple[str, ...]:
    """How students are trained where the space alone does not say it, one sentence each.

    Args:
        ledger: of the study, its recipe decided.
        space: what is searched.
        data: what students learn from.
    """
    notes = describe_labels(space, data)
    document = ledger.document
    if document.lr is None:
        return notes

    tried = []
    for lr, loss in document.lr_losses:
        tried.append(f"{lr:g} (loss {loss:.4f})" if loss is not None else f"{lr:g} (diverged)")
    return (*notes, f"Step size {document.lr:g}, chosen by a short probe of {', '.join(tried)}.")


def _finite(probed: Probe) -> tuple[tuple[float, float | None], ...]:
    """The losses as they are stored: JSON has no infinite number."""
    return tuple((lr, loss if isfinite(loss) else None) for lr, loss in probed.losses)
