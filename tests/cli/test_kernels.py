"""Which kernel a run takes: what is said of it, what is refused, and that a study is of any."""

import pytest

from gped_nas import open_study
from tests.cli.harness import Home, accepted, refused

PHASES = ("--set", "recipe.kernel=phases")
CNN = "students.0={family: cnn, genotype: {depth: 1, width: {choices: [2, 3]}, kernel: 3}}"


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_phases_without_a_gpu_are_refused_before_anything_is_written(
    home: Home, options: tuple[str, ...]
) -> None:
    says = (
        "recipe.kernel: found phases on the device cpu",
        "a CUDA device with Triton",
        "use auto",
    )
    refused(
        2, "run", home.space, "--out", home.out, "--device", "cpu", *PHASES, *options, says=says
    )
    assert not home.out.exists() and not home.cache.exists()


def test_phases_of_convolutions_are_refused_whatever_the_device(home: Home) -> None:
    says = ("recipe.kernel: found phases with students of family cnn", "auto or graph")
    refused(2, "space", home.space, *PHASES, "--set", CNN, says=says)


def test_phases_of_other_units_than_relus_are_refused_and_auto_takes_the_graph(home: Home) -> None:
    tanh = ("--set", "students.0.genotype.activation={choices: [relu, tanh]}")
    says = ("recipe.kernel: found phases with students of activation tanh", "auto or graph")
    refused(2, "space", home.space, *PHASES, *tanh, says=says)
    assert "activation" in accepted("space", home.space, *tanh, "--sample", "8").out


@pytest.mark.parametrize("kernel", ["auto", "graph"])
def test_a_dry_run_says_how_students_are_computed(home: Home, kernel: str) -> None:
    chosen = ("--set", f"recipe.kernel={kernel}", "--device", "cpu")
    plan = accepted("run", home.space, "--dry-run", *chosen).out
    (line,) = [line for line in plan.splitlines() if line.startswith("kernel ")]
    assert line.split(maxsplit=1)[1] == f"{kernel}: products on the CPU"


def test_a_study_goes_on_under_another_kernel(home: Home) -> None:
    home.run("--n-trials", "1", "--set", "recipe.kernel=graph")
    home.run("--n-trials", "2")
    records = open_study(home.study).records()
    assert len(records) == 2
    assert records[0].extra["recipe"] == records[1].extra["recipe"]
    assert "kernel" not in records[0].extra["recipe"]
