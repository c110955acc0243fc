"""A grid's file: what it means, and that a bad one is refused with the nearest name."""

from pathlib import Path
from typing import Any

import pytest

from gped_nas.errors import ConfigError, GpedError, RegistryError
from gped_nas.models.base import Genotype
from gped_nas.suite.cells import cells_of
from gped_nas.suite.grid import Grid
from gped_nas.suite.grid_file import load_grid
from gped_nas.suite.shipped import shipped_grids

GRID: dict[str, Any] = {
    "name": "small",
    "methods": ["own", "swag", {"long": {"name": "sgld", "num_samples": 200}}],
    "teachers": ["digits_mlp", {"masked": {"space": "digits_mlp", "set": {"data.mask": 3}}}],
    "students": ["none", {"tiny": {"family": "mlp", "genotype": {"depth": 1, "width": 8}}}],
    "tasks": ["prediction", "ood:permuted"],
    "seeds": 2,
}


def _read_task(text: str, where: str) -> list[str]:
    if text == "both":
        return ["first", "second"]
    if text not in ("prediction", "ood:permuted"):
        raise RegistryError(f"{where}: unknown task '{text}'")
    return [text]


def _load(**changed: Any) -> Grid:
    return load_grid({**GRID, **changed}, read_task=_read_task)


def test_a_cell_is_one_entry_of_each_axis() -> None:
    grid = _load()
    cells = list(cells_of(grid))
    assert len(cells) == grid.num_cells == 3 * 2 * 2 * 2 * 2
    assert len({str(cell) for cell in cells}) == len(cells)
    assert cells[0].names == {
        "teacher": "digits_mlp",
        "method": "own",
        "student": "none",
        "task": "prediction",
        "seed": 0,
    }
    # all that is asked of one teacher is asked while it is there
    assert [cell.method.name for cell in cells[:4]] == ["own"] * 4


def test_entries_are_names_or_names_with_settings() -> None:
    grid = _load(set={"recipe.steps": 40})
    assert [method.settings for method in grid.methods] == [
        None,
        {"name": "swag"},
        {"name": "sgld", "num_samples": 200},
    ]
    wide = {"name": "sgld", "set": {"teacher.prior.precision": 2.0}}
    (method,) = _load(methods=[{"wide": wide}]).methods
    assert method.settings == {"name": "sgld"}
    assert method.overrides == {"teacher.prior.precision": 2.0}
    plain, masked = grid.teachers
    assert Path(plain.space).name == "digits_mlp.yaml"
    assert plain.overrides == {"recipe.steps": 40}
    assert masked.overrides == {"data.mask": 3, "recipe.steps": 40}
    assert grid.students[1].genotype == Genotype("mlp", depth=1, width=8)
    assert grid.seeds == (0, 1)
    assert _load(seeds=[7, 3]).seeds == (7, 3)
    assert _load(tasks=["prediction", "both"]).tasks == ("prediction", "first", "second")


def test_dials_make_a_teacher_of_each_setting() -> None:
    dials = {"mask": [4, 2], "subsample": [200]}
    grid = _load(teachers=[{"d": {"space": "digits_mlp", "dials": dials}}])
    assert [(teacher.name, dict(teacher.overrides)) for teacher in grid.teachers] == [
        ("d", {}),
        ("d mask-2", {"data.mask": 2}),
        ("d mask-4", {"data.mask": 4}),
        ("d subsample-200", {"data.subsample": 200}),
    ]


def test_a_space_is_looked_for_beside_the_grid_first(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    (tmp_path / "grid.yaml").write_text("name: g\nteachers: [mine.yaml]\n")
    (teacher,) = load_grid(tmp_path / "grid.yaml", read_task=_read_task).teachers
    assert (teacher.name, teacher.space) == ("mine", str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methds": []}, "grid: methds: unknown key; did you mean 'methods'?"),
        ({"methods": ["swga"]}, r"methods\[0\]: unknown method 'swga'; did you mean 'swag'?"),
        ({"methods": []}, "methods: .*at least 1 entry"),
        ({"methods": ["swag", "swag"]}, "methods: found 'swag' twice"),
        (
            {"methods": [{"a": {"name": "sgdl"}}]},
            r"methods\[0\]: a: name: unknown method 'sgdl'; did you mean",
        ),
        ({"methods": [{"a": 1}]}, r"methods\[0\]: a: found '1', expected a mapping"),
        ({"methods": [{"a": {"name": "sgld", "set": 1}}]}, r"a.set: found '1', expected a mapping"),
        ({"methods": [{"a": {}, "b": {}}]}, "expected a name, or one name of yours"),
        ({"teachers": ["digits_mpl"]}, r"teachers\[0\]: digits_mpl: .*did you mean 'digits_mlp'"),
        ({"teachers": [{"t": {"spce": "a"}}]}, r"t: spce: unknown key; did you mean 'space'?"),
        ({"teachers": ["digits_mlp", {"digits_mlp": {"space": "digits_mlp"}}]}, "twice"),
        ({"students": ["frnt"]}, r"students\[0\]: found 'frnt'; did you mean 'front'?"),
        ({"students": [{"front": {"family": "mlp", "genotype": {}}}]}, "which has none"),
        (
            {"students": [{"s": {"family": "mpl", "genotype": {"depth": 1}}}]},
            r"students\[0\]: s: .*'mpl'.*'mlp'",
        ),
        ({"tasks": ["predict"]}, r"tasks\[0\]: unknown task 'predict'"),
        ({"tasks": [{"ood": "permuted"}]}, "in quotes where it has a colon"),
        ({"tasks": "prediction"}, "tasks: found 'prediction', expected a list"),
        ({"tasks": ["both", "both"]}, "tasks: found 'first' twice"),
        ({"seeds": 0}, "seeds: found 0, expected how many"),
        ({"seeds": [1, 1]}, "seeds: found 1 twice"),
        ({"seeds": [True]}, "seeds: found"),
        ({"seeds": [-1]}, "seeds: found"),
        ({"set": {"seed": 5}}, r"grid: set: found seed, .*; write seeds: \[5\]"),
        ({"teachers": [{"t": {"space": "digits_mlp", "set": {"seed": 5}}}]}, r"t.set: found seed"),
        ({"methods": [{"a": {"name": "sgld", "set": {"seed": 5}}}]}, r"a.set: found seed"),
        ({"name": "a/b"}, "grid: name: found 'a/b', expected a name"),
        ({"part": "training"}, "part: found 'training'"),
        ({"seeds": 1000, "tasks": ["prediction"] + [f"t{i}" for i in range(99)]}, "unknown task"),
        (
            {"teachers": [{"d": {"space": "digits_mlp", "dials": {"mask": [-1]}}}]},
            "d.dials: found nothing to turn, or a negative number",
        ),
    ],
)
def test_a_bad_grid_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(GpedError, match=message):
        _load(**changed)


def test_too_many_cells_are_refused() -> None:
    widths = range(1, 121)
    students = [{f"w{w}": {"family": "mlp", "genotype": {"depth": 1, "width": w}}} for w in widths]
    with pytest.raises(ConfigError, match="found 1,440,000 cells, expected at most 100,000"):
        _load(students=students, seeds=1000)


def test_what_is_neither_a_file_nor_shipped_names_the_nearest_grid() -> None:
    with pytest.raises(ConfigError, match="no shipped grid of that name; did you mean 'ursabench'"):
        load_grid("ursabnch", read_task=_read_task)
    with pytest.raises(ConfigError, match="no such file"):
        load_grid("missing.yaml", read_task=_read_task)


def test_a_grid_of_the_package_is_found_by_name() -> None:
    assert {"gped_paper", "ursabench"} <= set(shipped_grids())


def test_the_stand_in_has_the_methods_of_the_grid_that_it_stands_for() -> None:
    both = [
        load_grid(name, read_task=lambda text, where: [text])
        for name in ("ursabench", "ursabench_fashion")
    ]
    assert both[0].methods == both[1].methods
    assert both[0].metrics == both[1].metrics
