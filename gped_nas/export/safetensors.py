"""Export as safetensors and ``spec.json``: what ``load_student`` reads back, checked after it is written."""

from pathlib import Path

import torch

from gped_nas.distill.student import SPEC_FILE, WEIGHTS_FILE, load_student
from gped_nas.errors import DataError
from gped_nas.io import environment, make_dir, write_bytes

PROBE_INPUTS = 16


def export_student(source: Path, target: Path) -> Path:
    """Copy a student's two files and check that the copy predicts bit for bit what the original does.

    Args:
        source: the student's folder in its study.
        target: the folder to write.

    Returns:
        ``target``.

    Raises:
        DataError: the student is damaged.
        EnvironmentProblem: the target cannot be written.
    """
    student = load_student(source)
    make_dir(target)
    for name in (WEIGHTS_FILE, SPEC_FILE):
        with environment("read", source / name):
            data = (source / name).read_bytes()
        write_bytes(target / name, data)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn((PROBE_INPUTS, *student.spec.input_shape), generator=generator)
    probe = probe * student.spec.normalization.std + student.spec.normalization.mean
    if not torch.equal(student(probe), load_student(target)(probe)):
        raise DataError(f"{target}: the copy does not predict what the original does; write it again")
    return target
