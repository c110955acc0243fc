"""Students of genotypes that nobody searched for: the teacher's own, the smallest, given ones."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from gped_nas.api.lessons import distillation_set, rung_set
from gped_nas.api.recipes import probe_step_sizes, with_step_size
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import Teacher
from gped_nas.data.base import Part
from gped_nas.distill.student import save_student
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.io import make_dir, seal_dir
from gped_nas.models.base import Genotype, num_params
from gped_nas.search.space import SearchSpace

_VALIDATION: Part = "validation"


def smallest_of(space: SearchSpace) -> Genotype:
    """The genotype of the space with the fewest parameters, neither penalized nor rounded."""
    corners = [corner.unpruned.replace(storage_dtype="float32") for corner in space.corners()]
    return min(corners, key=lambda genotype: num_params(genotype.shapes((1,), 1)))


def distill_fixed(
    teacher: Teacher, genotypes: Mapping[str, Genotype], folder: Path
) -> dict[str, Path]:
    """Students of these genotypes by the space's recipe, each in a folder of its own.

    Args:
        teacher: whom they imitate.
        genotypes: by the name of the folder.
        folder: what these folders are put into; one that is there is replaced.

    Returns:
        The folder of each, written whole.

    Raises:
        DivergenceError: one is of no use.
        Interrupted: the session said stop.
    """
    data = distillation_set(teacher)
    recipe = teacher.space.recipe
    if recipe.lr_probe:
        recipe = with_step_size(recipe, probe_step_sizes(teacher, data, recipe).lr)
    labels = teacher.dataset.labels(_VALIDATION)
    trainer = Trainer(
        teacher=teacher,
        data=data,
        recipe=recipe,
        validation=teacher.averaged(_VALIDATION),
        resamples=draw_resamples(len(labels), root=teacher.space.seed, part=_VALIDATION),
        folder=folder,
        about={"stream": teacher.stream.digest},
        rung_set=rung_set(teacher, data.layout),
    )
    students = trainer.distill_sound([*genotypes.values()])

    folders = {}
    make_dir(folder)
    for (name, genotype), trained in zip(genotypes.items(), students, strict=True):
        building = folder / f".{name}.building"
        shutil.rmtree(building, ignore_errors=True)
        save_student(building, trainer.spec(genotype), trained.params)
        shutil.rmtree(folder / name, ignore_errors=True)
        seal_dir(building, folder / name)
        folders[name] = folder / name
    return folders
