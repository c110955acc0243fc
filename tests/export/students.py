"""Small students of every registered family, written as a study writes them."""

from pathlib import Path

import torch

from gped_nas import rng
from gped_nas.data.base import Normalization
from gped_nas.distill.student import StudentSpec, save_student
from gped_nas.models.base import FAMILIES, Genotype, initialize
from tests.scenarios import GENOTYPES

SHAPE = (1, 8, 8)
USUAL = ("predictive", "expected_entropy")
ALL = (
    "predictive",
    "expected_entropy",
    "second_moment",
    "variance",
    "dirichlet",
    "quantile",
    "utility",
)


def make_student(
    folder: Path,
    genotype: Genotype,
    *,
    dtype: str = "float32",
    targets: tuple[str, ...] = USUAL,
    class_names: tuple[str, ...] = ("cat", "dog", "eel"),
) -> Path:
    """A student with random weights in ``folder``; a real label's where there are no class names."""
    spec = StudentSpec(
        family=genotype.family,
        input_shape=SHAPE,
        class_names=class_names,
        targets=targets,  # type: ignore[arg-type]
        normalization=Normalization(90.0, 70.0),
        label_normalization=None if class_names else Normalization(150.0, 77.0),
        storage_dtype=dtype,
        genotype=genotype.to_json(),
        about={"study": "s", "trial": "3"},
    )
    shapes = genotype.shapes(SHAPE, spec.layout.num_outputs)
    params = initialize(shapes, generator=rng.generator(0, "export", str(genotype)))
    save_student(folder, spec, {name: p + 0.1 if p.dim() == 1 else p for name, p in params.items()})
    return folder


# Of each family one whose weights outweigh a container: 40 kB at least, four times as much in
# float32.
WIDE = {
    "mlp": Genotype("mlp", depth=1, width=700),
    "cnn": Genotype("cnn", depth=2, width=[16, 300], kernel=3, pool=[2, 1]),
    "resnet": Genotype("resnet", depth=1, width=[4, 72]),
}


def make_students(root: Path) -> dict[str, Path]:
    """Every family in int8, one of them with every target, families of images in float16 too, and a
    real label.
    """
    found = {
        f"int8-{family}": make_student(
            root / family, WIDE[family], dtype="int8", targets=ALL if family == "cnn" else USUAL
        )
        for family in FAMILIES
    }
    for family in ("cnn", "resnet"):
        found[f"float16-{family}"] = make_student(
            root / f"half-{family}", GENOTYPES[family][0], dtype="float16"
        )
    small = Genotype("mlp", depth=1, width=3)
    found["regression"] = make_student(
        root / "real", small, targets=("predictive_normal",), class_names=()
    )
    return found


def raw_inputs(num: int = 1000) -> torch.Tensor:
    """Raw inputs from 0 to 255, other than those that parity is checked on."""
    return torch.randint(0, 256, (num, *SHAPE), generator=rng.generator(0, "export", "raw")).float()
