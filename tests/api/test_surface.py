"""``import gped_nas as gn``: what a notebook can do, and that its numbers are the files'."""

import ast
import math
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas import api
from gped_nas.errors import (
    ConfigError,
    DamageError,
    DataError,
    GateError,
    RegistryError,
    StreamError,
)
from tests.cli.harness import Home, accepted, refused

OVERRIDES = {
    "teacher.genotype": {"depth": 1, "width": 8},
    "teacher.method.num_samples": 4,
    "teacher.method.burn_in": 20,
    "teacher.method.thinning": 10,
    "recipe": {"steps": 40, "warmup": 5},
    "baseline": {"steps": 100, "precisions": [1.0]},
    "twins": {"seeds": 0},
    "search": {"n_trials": 3, "students_at_once": 3, "keep": {}, "every_dtype": False},
}


def names_for_type_checkers(module: ModuleType) -> set[str]:
    """What a module imports for type checkers alone: its lazy public names."""
    assert module.__file__ is not None
    names = set()
    for statement in ast.parse(Path(module.__file__).read_text()).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for imported in statement.body:
                assert isinstance(imported, ast.ImportFrom)
                names |= {alias.asname or alias.name for alias in imported.names}
    return names


def test_every_public_name_is_there_and_they_are_sorted() -> None:
    assert gn.__all__ == sorted(gn.__all__) and len(set(gn.__all__)) == len(gn.__all__)
    for name in gn.__all__:
        assert getattr(gn, name) is not None
    assert set(gn.__all__) <= set(dir(gn))
    assert api.__all__ == sorted(api.__all__) and set(gn.__all__) <= set(api.__all__)

    assert names_for_type_checkers(gn) == set(gn.__all__)
    assert names_for_type_checkers(api) <= set(api.__all__)

    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = gn.nothing_of_ours


@pytest.mark.parametrize(
    ("old", "new"), [("compare", "compare_methods"), ("write_comparison", "compare_studies")]
)
def test_names_of_earlier_versions_work_and_warn(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"gped_nas.{old} is called {new} now"):
        assert getattr(gn, old) is getattr(gn, new)
    assert old not in gn.__all__


def test_a_session_in_a_notebook(home: Home) -> None:
    space = gn.load_space("digits_sgld", OVERRIDES)
    with pytest.raises(AttributeError):
        space.name = "other"  # type: ignore[misc]

    study = gn.run(space, out="reports", seed=0)
    assert study.path == Path("reports/digits_sgld") and len(study.records()) == 3
    front = study.front_records()
    assert front and all(record.state == "complete" for record in front)
    assert study.write_report() == study.path / "report.html"
    assert study.front().index.tolist() == [record.trial for record in front]

    student = gn.load_student(f"reports/digits_sgld/students/{front[0].trial}")
    assert isinstance(student, torch.nn.Module)
    dataset = gn.load_dataset(space)
    answers = student.predict(dataset.raw("validation"))
    assert list(answers) == ["predictive", "expected_entropy", "mutual_information"]
    entropy = torch.special.entr(answers["predictive"]).sum(-1, keepdim=True)
    information = (entropy - answers["expected_entropy"]).clamp_min(0)
    assert torch.equal(answers["mutual_information"], information)
    assert {target.name for target in space.targets} < set(answers)
    prob = answers["predictive"]
    assert torch.allclose(prob.sum(-1), torch.ones(288), atol=1e-5)
    entropy = -(prob * prob.clamp_min(1e-30).log()).sum(-1, keepdim=True)
    assert (answers["expected_entropy"] <= entropy + 1e-6).all()
    assert (answers["expected_entropy"] >= 0).all()

    stream = gn.load_stream(study.stream_path)
    num_inputs = len(dataset.raw("distillation"))
    prob = stream.log_prob.exp()
    assert prob.shape == (4, num_inputs, 10)
    assert torch.allclose(prob.sum(-1), torch.ones(4, num_inputs), atol=1e-5)
    assert stream.params(3)["layers.0.weight"].shape == (8, 64)
    assert torch.allclose(stream.expectation("predictive"), prob.mean(0), atol=1e-6)
    assert stream.weight.tolist() == pytest.approx([0.25] * 4)
    with pytest.raises(StreamError, match="no posterior sample"):
        stream.params(4)
    with pytest.raises(RegistryError, match="predictive"):
        stream.expectation("predictiv")

    again = gn.open_study("digits_sgld")
    assert again.records() == study.records() and again.chosen() == study.chosen()


def test_the_cost_of_the_paper_s_network() -> None:
    """784-400-400-10: 784*400 + 400*400 + 400*10 multiply-adds, and 400 + 400 + 10 biases."""
    genotype = gn.Genotype("mlp", depth=2, width=400)
    cost = gn.cost(genotype, input_shape=(1, 28, 28), num_classes=10, targets=("predictive",))
    assert (cost.macs, cost.flops, cost.params) == (477_600, 955_200, 478_410)
    assert 4 * 478_410 < cost.storage_bytes < 4 * 478_410 + 2000

    targets = ("predictive", "expected_entropy")
    wider = gn.cost(genotype, input_shape=(784,), num_classes=10, targets=targets)
    assert (wider.macs, wider.params) == (477_600 + 400, 478_410 + 401)


def test_the_cost_of_the_paper_s_convolutional_network() -> None:
    genotype = gn.Genotype("cnn", depth=2, width=[10, 20], kernel=4, pool=2, head_width=[80])
    cost = gn.cost(genotype, input_shape=(1, 28, 28), num_classes=10)
    assert (cost.macs, cost.flops, cost.params) == (385_600, 771_200, 29_880)

    message = r"family: found cnn, which reads images .* shape \(784,\)"
    with pytest.raises(ConfigError, match=message):
        gn.cost(genotype, input_shape=(784,), num_classes=10)


def test_the_front_of_an_array() -> None:
    points = np.array([[1.0, 5.0], [2.0, 4.0], [2.0, 5.0], [np.nan, 0.0], [0.5, 9.0]])
    both_low = gn.pareto_front(points, ["minimize", "minimize"])
    assert both_low.tolist() == [True, True, False, False, True]
    low_and_high = gn.pareto_front(points, ["minimize", "maximize"])
    assert low_and_high.tolist() == [False, False, False, False, True]


def test_what_a_study_refuses(finished: Home) -> None:
    space = gn.load_space(finished.space)
    with pytest.raises(ConfigError, match="seed: found 7"):
        gn.run(space, out=finished.out, seed=7)
    with pytest.raises(ConfigError, match="at least 1"):
        gn.run(space, out=finished.out, n_trials=0)

    study = gn.open_study(finished.study)
    with pytest.raises(GateError, match="params <= 3"):
        study.pick({"params": 3})
    with pytest.raises(ConfigError, match="'rmse' was not measured in study"):
        study.pick({"rmse": 1.0})
    with pytest.raises(ConfigError, match="figure 'fornt'"):
        study.figure("fornt")


def test_folders_that_are_not_there_are_refused(finished: Home) -> None:
    with pytest.raises(DataError, match="nowhere"):
        gn.load_student(finished.root / "nowhere")
    with pytest.raises(StreamError, match="nowhere"):
        gn.load_stream(str(finished.root / "nowhere"))


def test_a_student_with_the_files_of_another_trial_is_refused(own: Home, tmp_path: Path) -> None:
    first, second, *_ = sorted((own.study / "students").iterdir())
    raw = tmp_path / "x.npy"
    np.save(raw, np.zeros((1, 8, 8), np.float32))
    shutil.copytree(second, first, dirs_exist_ok=True)
    says = (str(first), f"trial {second.name}", "restore")
    refused(4, "predict", first, raw, says=says)
    with pytest.raises(DamageError, match=f"trial {second.name}"):
        gn.load_student(first)

    # Elsewhere a number is a name like any other.
    shutil.copytree(second, tmp_path / "77")
    accepted("predict", tmp_path / "77", raw)


def test_a_front_students_numbers_follow_from_its_files(finished: Home) -> None:
    """Accuracy and NLL, computed here from the written student and the dataset's own parts."""
    study = gn.open_study(finished.study)
    dataset = gn.load_dataset(gn.load_space(finished.space))
    for part, prefix in (("validation", ""), ("test", "test_")):
        raw, labels = dataset.raw(part), dataset.labels(part)  # type: ignore[arg-type]
        for record in study.front_records():
            folder = study.path / "students" / str(record.trial)
            prob = gn.load_student(folder).predict(raw)["predictive"].double().numpy()

            num_hits = 0
            nll = 0.0
            for row, label in zip(prob, labels, strict=True):
                num_hits += int(row.argmax()) == label
                nll -= math.log(row[label]) / len(labels)

            accuracy = num_hits / len(labels)
            assert record.metrics[f"{prefix}accuracy"] == pytest.approx(accuracy, abs=1e-12)
            assert record.metrics[f"{prefix}nll"] == pytest.approx(nll, abs=1e-5)
            assert record.measured(f"{prefix}nll").n == len(labels)
            assert record.costs["storage_bytes"] == (folder / "weights.safetensors").stat().st_size
