"""Small students of every registered family, written as a study writes them."""

from pathlib import Path

import torch

from gped_nas import rng
from gped_nas.data.normalization import AnyNormalization, Normalization
from gped_nas.distill.student import StudentSpec, save_student
from gped_nas.models.base import Genotype, initialize
from tests.scenarios import GENOTYPES

SHAPE = (1, 8, 8)
WHOLE = Normalization(90.0, 70.0)
LABEL = Normalization(150.0, 77.0)
USUAL = ("predictive", "expected_entropy")
ALL = (*USUAL, "second_moment", "variance", "dirichlet", "quantile", "utility")
ALL = (*ALL, "interval", "logit_variance", "factors")


def make_student(
    folder: Path,
    genotype: Genotype,
    *,
    dtype: str = "float32",
    targets: tuple[str, ...] = USUAL,
    class_names: tuple[str, ...] = ("cat", "dog", "eel"),
    shape: tuple[int, ...] = SHAPE,
    normalization: AnyNormalization = WHOLE,
    label_normalization: Normalization = LABEL,
) -> Path:
    """A student with random weights in ``folder``, of a real label if there are no class names."""
    spec = StudentSpec(
        family=genotype.family,
        input_shape=shape,
        class_names=class_names,
        targets=targets,  # type: ignore[arg-type]
        normalization=normalization,
        label_normalization=None if class_names else label_normalization,
        storage_dtype=dtype,
        genotype=genotype.to_json(),
        about={"study": "s", "trial": "3"},
    )

    shapes = genotype.shapes(spec.network_shape, spec.layout.num_outputs)
    params = initialize(shapes, generator=rng.generator(0, "export", str(genotype)))
    for name, p in params.items():
        if p.dim() == 1:
            params[name] = p + 0.1  # a bias of zero would hide a mistake
    save_student(folder, spec, params)
    return folder


WIDE = {
    "mlp": Genotype("mlp", depth=1, width=700),
    "cnn": Genotype("cnn", depth=2, width=[16, 300], kernel=3, pool=[2, 1]),
    "resnet": Genotype("resnet", depth=1, width=[4, 72]),
}
"""Of each family one whose weights outweigh a container.

They take 40 kB at least, and four times as much in float32.
"""


DEEP = Genotype(
    "cnn",
    **{"depth": 4, "width": [3, 4, 5, 4], "kernel": [3, 3, 1, 3], "stride": [2, 1, 1, 1]},
    **{"stages": 2, "padding": "same", "head": "global_average", "block": "separable"},
)
"""With all that the layers of a convolutional network can say of themselves."""


def make_students(root: Path) -> dict[str, Path]:
    """Every family in int8, families of images in float16 too, and a student of a real label.

    One of them has every target, and three have units that are no ReLUs.
    """
    students = {}
    for family, genotype in WIDE.items():
        targets = ALL if family == "cnn" else USUAL
        folder = make_student(root / family, genotype, dtype="int8", targets=targets)
        students[f"int8-{family}"] = folder

    for family, activation in (("cnn", "silu"), ("resnet", "tanh")):
        genotype = GENOTYPES[family][0].replace(activation=activation)
        folder = make_student(root / f"half-{family}", genotype, dtype="float16")
        students[f"float16-{family}"] = folder

    students["deep-cnn"] = make_student(root / "deep", DEEP)

    small = Genotype("mlp", depth=1, width=3, activation="gelu")
    folder = make_student(root / "real", small, targets=("predictive_normal",), class_names=())
    students["regression"] = folder
    return students


def raw_inputs(num: int = 1000) -> torch.Tensor:
    """Raw inputs from 0 to 255, other than those that parity is checked on."""
    return torch.randint(0, 256, (num, *SHAPE), generator=rng.generator(0, "export", "raw")).float()
