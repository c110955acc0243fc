"""Genotypes counted in closed form against the list of all of them."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas.search.counting import count_genotypes
from gped_nas.search.dimensions import StudentSpace
from gped_nas.search.ranges import parse_dimensions


def parse(ranges: dict[str, Any], family: str = "mlp", prefix: str = "") -> StudentSpace:
    return parse_dimensions(family, ranges, "space.yaml: students[0].genotype", prefix)


def listed(students: list[StudentSpace]) -> int:
    seen: set[Any] = set()
    return sum(1 for student in students for _ in student.enumerate(seen))


def entries(low: int, high: int) -> st.SearchStrategy[Any]:
    """A constant, choices, or a range with a step."""
    number = st.integers(low, high)
    some = st.lists(number, min_size=1, max_size=3, unique=True).map(lambda each: {"choices": each})
    stepped = st.builds(
        lambda start, length, step: {"int": [start, min(start + length, high)], "step": step},
        number,
        st.integers(0, 3),
        st.integers(1, 2),
    )
    return st.one_of(number, some, stepped)


def layers(low: int, high: int, num: int) -> st.SearchStrategy[Any]:
    """One range for all layers, or one for each."""
    each = entries(low, high)
    return st.one_of(each, st.lists(each, min_size=num, max_size=num))


COMMON = {
    "group_penalty": st.sampled_from([0, 0.1, {"choices": [0, 0.1]}, {"int": [0, 2]}]),
    "storage_dtype": st.sampled_from(["int8", {"choices": ["int8", "float32"]}]),
}
RANGES = {
    "mlp": st.fixed_dictionaries(
        {"depth": entries(0, 3), "width": layers(1, 6, 3)}, optional=COMMON
    ),
    "cnn": st.fixed_dictionaries(
        {"depth": entries(1, 2), "width": layers(1, 3, 2), "kernel": layers(1, 3, 2)},
        optional={
            "head_depth": entries(0, 1),
            "head_width": layers(1, 4, 1),
            "stride": layers(1, 3, 2),
            "padding": st.sampled_from(["valid", {"choices": ["valid"]}]),
            "head": st.sampled_from(["flatten", {"choices": ["flatten", "global_average"]}]),
            "block": st.sampled_from(["plain", {"choices": ["separable", "plain"]}]),
            **COMMON,
        },
    ),
    "resnet": st.fixed_dictionaries(
        {"stages": entries(1, 2), "depth": layers(1, 2, 2), "width": layers(1, 4, 2)},
        optional=COMMON,
    ),
}


@pytest.mark.parametrize("family", RANGES)
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_count_is_the_length_of_the_list(family: str, data: st.DataObject) -> None:
    num_spaces = data.draw(st.integers(1, 3))
    students = []
    for i in range(num_spaces):
        ranges = data.draw(RANGES[family])
        if family == "cnn" and ("head_depth" in ranges) != ("head_width" in ranges):
            ranges |= {"head_depth": 1, "head_width": 2}
        students.append(parse(ranges, family, f"{i}."))
    assert count_genotypes(students) == listed(students)


def test_by_hand() -> None:
    """Depth 1 ignores the second width: 2 genotypes; depth 2 has 2 x 2; each with two dtypes."""
    widths = [{"choices": [4, 8]}, {"choices": [2, 3]}]
    ranges = {"depth": {"int": [1, 2]}, "width": widths}
    assert (
        count_genotypes([parse({**ranges, "storage_dtype": {"choices": ["float32", "int8"]}})])
        == 12
    )

    # The second space adds width 9 in the first layer, alone and with 2 or 3: three more.
    wider = {**ranges, "width": [{"choices": [8, 9]}, {"choices": [2, 3]}]}
    assert count_genotypes([parse(ranges), parse(wider)]) == 6 + 3


def test_families_do_not_overlap() -> None:
    mlp = parse({"depth": 1, "width": {"int": [1, 5]}})
    resnet = parse({"depth": [1], "width": [{"int": [1, 4]}]}, "resnet")
    assert count_genotypes([mlp, resnet]) == 9


def test_a_vast_space_is_counted_at_once() -> None:
    start = time.process_time()
    twelve = parse({"depth": 12, "width": [{"choices": [4, 8, 16, 32, 64]}] * 12})
    wide = parse({"depth": {"int": [1, 16]}, "width": [{"int": [1, 60_000]}] * 16})
    assert count_genotypes([twelve]) == 5**12
    assert count_genotypes([wide]) == sum(60_000**depth for depth in range(1, 17))
    assert time.process_time() - start < 3
