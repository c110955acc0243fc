"""Genotypes in few words."""

from typing import Any

import pytest

from gped_nas.models.labels import short_genotype

SHORT: dict[str, dict[str, Any]] = {
    "mlp 128-64-32 float16": {
        "depth": 3,
        "group_penalty": 1e-5,
        "storage_dtype": "float16",
        "width": [128, 64, 32],
    },
    "mlp 16x64 int8": {"depth": 16, "storage_dtype": "int8", "width": [64] * 16},
    "mlp 64-64 residual": {"depth": 2, "width": [64, 64], "residual": True, "gated": False},
    "cnn 32-64 int8 kernel 5 \u2026": {
        "depth": 2,
        "head_depth": 0,
        "head_width": [],
        "kernel": [5, 5],
        "pool": [2, 1],
        "storage_dtype": "int8",
        "width": [32, 64],
    },
    "mlp 100-100-100 residual": {"width": [100] * 3, "residual": True},  # 24 characters
    "resnet depth 1-2": {"depth": [1, 2]},
    "mlp \u2026": {"width": list(range(100, 110))},
}


@pytest.mark.parametrize("text", SHORT)
def test_a_genotype_is_told_in_few_words(text: str) -> None:
    assert short_genotype({"family": text.split()[0], **SHORT[text]}) == text
