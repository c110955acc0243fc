"""A course: what students are trained on and how, and students at its beginning."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.distill.centering import SEEN, enter, unit_means
from gped_nas.distill.certified import check_intervals
from gped_nas.distill.components import Components, in_components
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.phases import has_walk
from gped_nas.distill.precision import decided
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import Trainee
from gped_nas.errors import ConfigError
from gped_nas.io import canonical_json
from gped_nas.models.activations import RELU, activation_in
from gped_nas.models.base import FAMILIES, Genotype, Shapes
from gped_nas.models.costs import check_budget
from gped_nas.models.dense import dense_chain, reads_rows

BASE_WIDTH = 64
"""A student of this mean width takes the recipe's step size as it is."""
_SETTLED_ON = 2_048
"""Inputs that constants of forms are fitted to."""


@dataclass(frozen=True, eq=False)
class Course:
    """What all students that are trained together share, in this call and in later ones.

    Attributes:
        data: inputs and expectations.
        recipe: how to train.
        seed: root seed of initializations and of the batch order.
        validation: what rungs look at; needed where the recipe has rungs.
    """

    data: DistillationSet
    recipe: Recipe
    seed: int
    validation: DistillationSet | None = None

    def __post_init__(self) -> None:
        assert self.validation is not None or not self.recipe.rungs, "rungs look at validation"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells it from other courses, as plain data; a checkpoint holds it."""
        looked_at = self.validation if self.recipe.rungs else None
        return {
            "recipe": self.recipe.to_record(),
            "seed": self.seed,
            "data": self.data.digest,
            "validation": looked_at.digest if looked_at else "",
        }


def begin(
    course: Course, genotypes: Sequence[Genotype], *, device: torch.device
) -> tuple[Trainee, ...]:
    """One student for each genotype before its first step, on the CPU.

    Args:
        course: what they will be trained on.
        genotypes: what to train; equal ones give equal students up to rounding.
        device: where they will be trained; ``precision: auto`` asks what it is good at, once for
            all of these students.

    Raises:
        ConfigError: see ``check_form`` and ``check_budget``.
    """
    data, recipe = course.data, course.recipe
    input_shape = tuple(data.inputs.shape[1:])
    check_form(recipe, genotypes, input_shape, "recipe")
    for genotype in genotypes:
        check_budget(genotype, input_shape, data.layout.num_outputs, str(genotype))

    precision = decided(recipe, genotypes, data, device).precision
    entrance = _Entrance.here(course)
    if device.type != "cpu":
        entrance = entrance.moved_to(device, recipe)
    return tuple(_fresh(course, genotype, precision, entrance) for genotype in genotypes)


@dataclass(frozen=True, eq=False)
class _Entrance:
    """What students are brought into the frame and centered with, on the device that does it.

    Attributes:
        frame: that of the students, on the processor; None where they read plain inputs.
        frame_there: the same on the device.
        data: in the frame, on the device; on any but the processor as few as are looked at.
        device: None is the processor.
    """

    frame: Components | None
    frame_there: Components | None
    data: DistillationSet
    device: torch.device | None = None

    @classmethod
    def here(cls, course: Course) -> "_Entrance":
        """On the processor."""
        if not course.recipe.components:
            return cls(None, None, course.data)
        frame, data = in_components(course.data, course.recipe.components)
        return cls(frame, frame, data)

    def moved_to(self, device: torch.device, recipe: Recipe) -> "_Entrance":
        """The same on a device."""
        # every so-many-th of these are the same inputs again
        num_seen = SEEN if recipe.centered else _SETTLED_ON
        seen = self.data.inputs[:: max(1, len(self.data.inputs) // num_seen)]
        data = DistillationSet(seen.to(device), {}, self.data.layout)
        frame_there = None if self.frame is None else self.frame.to(device)
        return _Entrance(self.frame, frame_there, data, device)


def _fresh(course: Course, genotype: Genotype, precision: str, entrance: _Entrance) -> Trainee:
    """A student as it is drawn, brought into the frame and centered where the recipe says so."""
    recipe = course.recipe
    family = FAMILIES[genotype.family]
    shapes = course.data.shapes(genotype)
    seed = student_seed(course.seed, genotype)
    params = family.initialize(shapes, generator=torch.Generator().manual_seed(seed))
    if entrance.device is not None:
        params = {name: value.to(entrance.device) for name, value in params.items()}
    if entrance.frame_there is not None:
        params = entrance.frame_there.enter(params, dense_chain(family, shapes)[0])

    student = Trainee(
        genotype,
        lr_factor(shapes, recipe),
        params,
        seed=seed,
        precision=precision,
        frame=entrance.frame,
    )
    begin_phase(student, entrance.data, recipe)
    return student if entrance.device is None else student.to(torch.device("cpu"))


def begin_phase(student: Trainee, data: DistillationSet, recipe: Recipe) -> None:
    """Let the optimizer forget, and bring the student into its form or center it anew.

    Args:
        student: with plain parameters.
        data: what it is trained on, in its frame and where its parameters lie.
        recipe: how it is trained.
    """
    student.memory = {}
    student.centers = ()
    if recipe.centered:
        student.centers = unit_means(student.params, student.chain, data.inputs, student.dtype)
        student.params = enter(student.params, student.chain, student.centers)

    form = student.genotype.form
    if form is not None:
        batches = settling_batches(data, recipe)
        if student.step == 0:
            student.params, student.constants = form.begin(student.params)
        else:
            student.params, student.constants = form.enter(student.params, batches)
        student.settle(batches)


@torch.no_grad()
def settling_batches(data: DistillationSet, recipe: Recipe) -> list[Tensor]:
    """Distillation inputs that constants of forms are fitted to.

    They lie at equal distances, and so do those of each batch, so that every batch has something of
    every view.
    """
    stride = max(1, len(data.inputs) // _SETTLED_ON)
    inputs = data.inputs[::stride].float()
    num_seen = min(len(inputs), _SETTLED_ON)
    size = min(recipe.batch_size, num_seen)
    num_batches = num_seen // size
    return [inputs[i::num_batches][:size] for i in range(num_batches)]


def check_form(
    recipe: Recipe, genotypes: Iterable[Genotype], input_shape: tuple[int, ...], where: str
) -> None:
    """Refuse settings of the recipe for students that cannot be trained so.

    Args:
        recipe: how they are trained.
        genotypes: what is trained.
        input_shape: shape of one input.
        where: file and key of the recipe, for messages.

    Raises:
        ConfigError: with components or centered units one is no chain of dense layers, an input
            has fewer numbers than components, or a batch fewer inputs than a norm needs.
    """
    genotypes = tuple(genotypes)

    # key, its value, and the value that any student may have
    settings: list[tuple[str, object, object]] = []
    if recipe.components:
        settings.append(("components", recipe.components, 0))
    if recipe.centered:
        settings.append(("centered", "true", "false"))

    for key, value, expected in settings:
        for genotype in genotypes:
            shapes = genotype.shapes(input_shape, 1)
            chain = dense_chain(FAMILIES[genotype.family], shapes)
            if not reads_rows(chain, shapes, input_shape):
                raise ConfigError(
                    f"{where}.{key}: found {value} with students of family {genotype.family}, "
                    f"expected {expected}: only chains of dense layers (mlp) can be trained so"
                )

    if recipe.certify:
        _check_certified(recipe, genotypes, input_shape, where)

    for genotype in genotypes:
        form = genotype.form
        if form is not None and recipe.batch_size < form.least_batch:
            raise ConfigError(
                f"{where}.batch_size: found {recipe.batch_size} with norm {genotype['norm']}, "
                f"expected at least {form.least_batch}; raise it, or use norm weight"
            )

    num_inputs = prod(input_shape)
    if recipe.components > num_inputs:
        raise ConfigError(
            f"{where}.components: found {recipe.components}, expected at most {num_inputs}, "
            "the numbers of one input"
        )


def _check_certified(
    recipe: Recipe, genotypes: Iterable[Genotype], input_shape: tuple[int, ...], where: str
) -> None:
    """Refuse settings and students that certified training is not for. Raises ``ConfigError``."""
    for key, value in (("components", recipe.components), ("centered", recipe.centered)):
        if value:
            raise ConfigError(
                f"{where}.{key}: found it with certify {recipe.certify:g}, whose boxes are around "
                "plain inputs; leave one of them out"
            )
    for genotype in genotypes:
        check_intervals(genotype, input_shape, where)


def check_families(
    recipe: Recipe, genotypes: Iterable[Genotype], input_shape: tuple[int, ...], where: str
) -> None:
    """Refuse a kernel that some of the students cannot be trained by.

    References may be of other families: they take the graph.

    Args:
        recipe, genotypes, input_shape, where: see ``check_form``.

    Raises:
        ConfigError: phases are asked for, and one is no chain of dense layers.
    """
    if recipe.kernel != "phases":
        return

    for genotype in genotypes:
        shapes = genotype.shapes(input_shape, 1)
        chain = dense_chain(FAMILIES[genotype.family], shapes)
        if not reads_rows(chain, shapes, input_shape):
            raise ConfigError(
                f"{where}.kernel: found phases with students of family {genotype.family}, expected "
                "auto or graph: phases are for chains of dense layers (mlp)"
            )
        activation = activation_in(shapes)
        if not has_walk(activation):
            raise ConfigError(
                f"{where}.kernel: found phases with students of activation {activation}, expected "
                f"auto or graph: phases are for {RELU}; auto trains others in the graph"
            )


def student_seed(root: int, genotype: Genotype, replicate: int = 0) -> int:
    """The seed of a student: of its genotype and replicate, never of its place in a population."""
    return rng.seed(root, "student", canonical_json(genotype.to_json()), replicate)


def lr_factor(shapes: Shapes, recipe: Recipe) -> float:
    """What the step size of a student with these shapes, before pruning, is multiplied by."""
    rows = [shape[0] for shape in shapes.values() if len(shape) > 1]
    hidden_widths = rows[:-1]
    if not hidden_widths:
        return 1.0
    factor: float = (BASE_WIDTH * len(hidden_widths) / sum(hidden_widths)) ** recipe.lr_width_power
    return factor
