"""Every registered family keeps the promises that ``gped_nas.testing`` checks."""

from collections.abc import Callable

import pytest

from gped_nas.models.base import FAMILIES
from gped_nas.models.storage import decode, encode
from gped_nas.testing.families import FAMILY_CHECKS, FamilyCase, family_cases

STUDENTS = [name for name in FAMILIES if name != "module"]  # see tests/models/test_module.py
CASES = [case for name in STUDENTS for case in family_cases(name)]


@pytest.mark.parametrize("check", FAMILY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_family_keeps_its_promises(case: FamilyCase, check: Callable[[FamilyCase], None]) -> None:
    check(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_files_of_ours_are_read_in_the_order_of_the_layers(case: FamilyCase) -> None:
    """Weights without a genotype beside them, as ``import`` reads them, keep the family's order."""
    params = case.params(0.0)
    stored = encode(params, "float32")
    assert list(decode(dict(sorted(stored.items())))) == list(params)
