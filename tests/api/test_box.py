"""Boxes of the user's own, from a file to rows: against sampling, on two problems of the papers.

The first is a regression of ``y = x^3`` with noise, the second a small table of collision
avoidance, whose advisories follow from a rule.

Source: Wicker, Laurenti, Patane & Kwiatkowska 2020, arXiv:2004.10281, section 6, whose problems
they are, with data of our own.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import gped_nas as gn
from gped_nas.api.asked_networks import asked_student
from gped_nas.data.normalization import AxisNormalization, ImputingNormalization, Normalization
from gped_nas.distill.student import Student, StudentSpec, load_student, save_student
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.certify.asked import bounds_of, values_of
from gped_nas.evaluate.certify.box_answers import BoxAnswer
from gped_nas.evaluate.certify.region import parse_region
from gped_nas.evaluate.certify.verdict import VERDICTS
from gped_nas.models.base import Genotype
from gped_nas.targets.base import TARGETS

METHOD = {"name": "deep_ensemble", "num_samples": 3, "steps": 200, "lr": 0.02, "batch_size": 64}


def make_space(folder: Path, table: str, dataset: dict[str, Any], **teacher: Any) -> Path:
    """A space whose teacher is sampled in a second."""
    folder.mkdir()
    (folder / "table.csv").write_text(table)
    content = {
        "name": "boxes",
        "dataset": {"name": "csv", "path": str(folder / "table.csv"), "label": "label", **dataset},
        "teacher": {
            "family": "mlp",
            "genotype": {"depth": 1, "width": 16},
            "prior": {"name": "gaussian", "precision": 1.0},
            "method": METHOD,
            **teacher,
        },
        "views": [{"policy": "clean"}],
        "students": [{"family": "mlp", "genotype": {"depth": 1, "width": 8}}],
    }
    (folder / "space.yaml").write_text(yaml.safe_dump(content))
    return folder / "space.yaml"


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for both spaces."""
    return tmp_path_factory.mktemp("problems")


@pytest.fixture(autouse=True)
def _sampled_once(problems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers are sampled for all tests here."""
    monkeypatch.setenv("GPED_CACHE", str(problems / "cache"))


@pytest.fixture(scope="module")
def cubic(problems: Path) -> Path:
    """``y = x^3`` with noise, learned by tanh units as the paper's."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-4, 4, 120)
    y = x**3 + rng.normal(0, 5, 120)
    rows = [f"{a:.6f},{b:.6f}" for a, b in zip(x, y, strict=True)]
    likelihood = {"name": "heteroscedastic", "noise_std": 0.2}
    table = "x,label\n" + "\n".join(rows)
    return make_space(
        problems / "cubic",
        table,
        {"task": "regression"},
        likelihood=likelihood,
        genotype={"depth": 1, "width": 16, "activation": "tanh"},
    )


@pytest.fixture(scope="module")
def avoidance(problems: Path) -> Path:
    """What to advise where an intruder is ``height`` above, at rates of climb, in ``time`` s."""
    rng = np.random.default_rng(0)
    height = rng.uniform(-800, 800, 600)
    own, other = rng.uniform(-30, 30, (2, 600))
    time = rng.uniform(0, 40, 600)

    at_meeting = height + time * (other - own)
    is_near = np.abs(at_meeting) < 400
    advice = np.where(~is_near, "clear", np.where(at_meeting > 0, "descend", "climb"))
    rows = []
    for row in zip(height, own, other, time, advice, strict=True):
        rows.append(",".join([*(f"{each:.4f}" for each in row[:4]), str(row[4])]))
    table = "height,own,other,time,label\n" + "\n".join(rows)
    return make_space(problems / "avoidance", table, {})


def write_box(folder: Path, **content: Any) -> Path:
    """A box file."""
    (folder / "box.yaml").write_text(yaml.safe_dump(content))
    return folder / "box.yaml"


def ask(space: Path, box: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The teacher's rows by ``of`` and metric."""
    out = space.parent / "reports"
    rows = gn.evaluate_tasks(space, f"box:{box}", subjects="teacher", out=out).rows
    return {(row["of"], row["metric"]): row for row in rows}


def points(low: list[float], high: list[float], num: int = 8000) -> Tensor:
    """Corners and random inputs of a box."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand((num, len(low)), generator=generator, dtype=torch.float64)
    shares[: num // 4].round_()
    ends = torch.tensor([low, high], dtype=torch.float64)
    return ends[0] + shares * (ends[1] - ends[0])


def answers_of(space: Path, x: Tensor) -> Tensor:
    """What each posterior sample of the teacher says, (S, N, G)."""
    teacher = gn.load_teacher(space)
    stream = teacher.stream
    return torch.stack([teacher.forward(stream.params(i))(x) for i in range(stream.num_samples)])


def test_samples_of_a_cubic_lie_where_their_intervals_say(cubic: Path) -> None:
    box = write_box(cubic.parent, inputs={"x": [-2, 2]}, parts=100, safe="-30 <= mean <= 30")
    rows = ask(cubic, box)
    unit = gn.load_teacher(cubic).dataset.label_normalization
    mean_SN, variance_SN = answers_of(cubic, points([-2], [2])).double().unbind(-1)

    quantities = {"mean": mean_SN * unit.std + unit.mean, "std": variance_SN.sqrt() * unit.std}
    for name, value_SN in quantities.items():
        low, high = rows["samples", f"{name}_low"], rows["samples", f"{name}_high"]
        assert low["value"] <= float(value_SN.min()) and float(value_SN.max()) <= high["value"]
        # and they are close to what is reached
        length = high["reached"] - low["reached"]
        assert high["value"] - low["value"] < 1.1 * length

    is_safe_S = (quantities["mean"].abs() <= 30).all(1)
    assert rows["samples", "p_safe_low"]["value"] <= float(is_safe_S.double().mean())
    assert rows["samples", "p_safe_high"]["value"] >= float(is_safe_S.double().mean())
    assert rows["samples", "certified"]["safe"] == "-30 <= mean <= 30"
    assert rows["samples", "certified"]["n"] == 3

    weight_S1 = gn.load_teacher(cubic).stream.weight_S[:, None]
    mean_N = (weight_S1 * quantities["mean"]).sum(0)
    second_moment_N = quantities["std"].square() + quantities["mean"].square()
    std_N = ((weight_S1 * second_moment_N).sum(0) - mean_N.square()).sqrt()
    for name, value_N in (("mean", mean_N), ("std", std_N)):
        low, high = rows["average", f"{name}_low"], rows["average", f"{name}_high"]
        assert low["value"] <= float(value_N.min()) and float(value_N.max()) <= high["value"]


def test_what_is_plain_of_a_cubic_is_decided(cubic: Path) -> None:
    box = write_box(
        cubic.parent, inputs={"x": [2, 3]}, parts=50, safe=["mean >= -100", "std <= 90"]
    )
    rows = ask(cubic, box)
    assert rows["samples", "p_safe_low"]["value"] == 1
    assert rows["average", "certified"]["value"] == 1
    assert rows["average", "certified"]["volume"] == 1


SAFE_SET = {"height": [350, 600], "own": [-5, 0], "other": [0, 5], "time": [5, 15]}


@pytest.mark.parametrize(
    ("inputs", "safe"),
    [
        # the intruder is above and stays there: climbing is dangerous
        (SAFE_SET, "class is never climb"),
        (SAFE_SET, "class is descend"),
        ({**SAFE_SET, "height": [-600, 600]}, "class is never climb"),
    ],
)
def test_the_bracket_of_p_safe_holds_what_sampling_sees(
    avoidance: Path, inputs: dict[str, list[float]], safe: str
) -> None:
    rows = ask(avoidance, write_box(avoidance.parent, inputs=inputs, safe=safe, parts=400))
    teacher = gn.load_teacher(avoidance)
    names = teacher.dataset.class_names
    low, high = zip(*inputs.values(), strict=True)
    answers_SN = answers_of(avoidance, points(list(low), list(high))).argmax(-1)

    word = safe.split()[-1]
    is_it = answers_SN == names.index(word)
    is_safe_S = (~is_it if "never" in safe else is_it).all(1)
    seen_safe = float(is_safe_S.double().mean())

    low_end = rows["samples", "p_safe_low"]["value"]
    high_end = rows["samples", "p_safe_high"]["value"]
    assert low_end <= seen_safe <= high_end
    shares = [rows["samples", name]["value"] for name in VERDICTS]
    assert sum(shares) == pytest.approx(1)
    # the bracket closes: every sample is decided
    assert low_end == high_end == seen_safe

    # so is the average, whose unsafe answer is shown
    verdict = {name: rows["average", name]["value"] for name in VERDICTS}
    average_N = answers_of(avoidance, points(list(low), list(high))).exp().mean(0).argmax(-1)
    is_safe = bool(((average_N == names.index(word)) != ("never" in safe)).all())
    assert verdict == {"certified": float(is_safe), "broken": float(not is_safe), "unknown": 0}
    if not is_safe:
        witness = rows["average", "broken"]["witness"]
        x = torch.tensor([list(witness.values())], dtype=torch.float64)
        assert list(witness) == list(inputs)
        assert bool(((torch.tensor(low) <= x) & (x <= torch.tensor(high))).all())
        answer = int(teacher.predict(x)["predictive"].argmax())
        assert (answer == names.index(word)) == ("never" in safe)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_file_is_asked_as_what_it_is(tmp_path: Path, dtype: str) -> None:
    """Int8 weights as the numbers that they stand for; a table whose missing ones are filled in."""
    generator = torch.Generator().manual_seed(0)
    genotype = Genotype("mlp", depth=1, width=12, storage_dtype=dtype)
    columns = AxisNormalization((40.0, 1.7), (10.0, 0.1))
    spec = StudentSpec(
        family="mlp",
        input_shape=(2,),
        class_names=(),
        targets=(TARGETS["predictive_normal"],),
        normalization=ImputingNormalization(columns, (41.0, 1.6), (1,)),
        storage_dtype=dtype,
        genotype=genotype.to_json(),
        label_normalization=Normalization(100.0, 15.0),
    )
    shapes = genotype.shapes(spec.network_shape, spec.layout.num_outputs)
    params = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_student(tmp_path, spec, params)
    student = load_student(tmp_path)

    low, high = torch.tensor([[20.0, 1.5]]).double(), torch.tensor([[60.0, 2.0]]).double()
    lower, upper = asked_student(student).quantities(low, high)
    normal_N2 = student.predict(points([20, 1.5], [60, 2.0]))["predictive_normal"]
    for place, seen in enumerate((normal_N2[:, 0], normal_N2[:, 1].sqrt())):
        assert float(lower[0, place]) <= float(seen.min())
        assert float(seen.max()) <= float(upper[0, place])

    # in a point they are what the file says, and not what it was made of
    point = torch.tensor([[33.0, 1.8]]).double()
    lower, upper = asked_student(student).quantities(point, point)
    mean = float(student.predict(point)["predictive_normal"][0, 0])
    assert float(lower[0, 0]) <= mean <= float(upper[0, 0])
    unrounded = float(Student(spec, params).predict(point)["predictive_normal"][0, 0])
    is_it = float(lower[0, 0]) <= unrounded <= float(upper[0, 0])
    assert is_it == (dtype == "float32")


def test_a_convolutional_student_is_asked_about_pixels(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    genotype = Genotype("cnn", depth=1, width=4, kernel=3, pool=2, head_width=[6])
    spec = StudentSpec(
        family="cnn",
        input_shape=(1, 6, 6),
        class_names=("a", "b", "c"),
        targets=(TARGETS["predictive"],),
        normalization=Normalization(5.0, 6.0),
        storage_dtype="float32",
        genotype=genotype.to_json(),
    )
    shapes = genotype.shapes(spec.network_shape, spec.layout.num_outputs)
    params = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_student(tmp_path, spec, params)
    asked = asked_student(load_student(tmp_path))

    middle = 16 * torch.rand((1, 1, 6, 6), generator=generator).double()
    low, high = middle - 0.2, middle + 0.2
    region = parse_region(["class is never b"], spec.class_names, "here")
    lower = bounds_of(asked, region)(low, high)
    shares = torch.rand((4000, 1, 6, 6), generator=generator).double()
    shares[:1000].round_()
    seen = values_of(asked, region)(low + shares * (high - low))
    assert bool((lower <= seen).all())
    assert bool((seen.amin(0) - lower < 3 * (seen.amax(0) - seen.amin(0))).all())


def test_a_student_is_asked_in_python(cubic: Path, tmp_path: Path) -> None:
    dataset = gn.load_dataset(gn.load_space(cubic))
    genotype = Genotype("mlp", depth=1, width=6)
    spec = StudentSpec(
        family="mlp",
        input_shape=(1,),
        class_names=(),
        targets=(TARGETS["predictive_normal"],),
        normalization=dataset.normalization,
        storage_dtype="float32",
        genotype=genotype.to_json(),
        label_normalization=dataset.label_normalization,
    )
    generator = torch.Generator().manual_seed(0)
    shapes = genotype.shapes(spec.network_shape, spec.layout.num_outputs)
    params = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_student(tmp_path, spec, params)
    student = load_student(tmp_path)
    mean_N = student.predict(points([-1], [2]))["predictive_normal"][:, 0]
    least, most = float(mean_N.min()), float(mean_N.max())

    def asked(safe: str) -> BoxAnswer:
        return gn.certify_box(student, {"inputs": {"x": [-1, 2]}, "safe": safe}, dataset)

    answer = asked(f"mean <= {most + 1}")
    assert answer.judged is not None and answer.judged.verdict == "certified"
    assert answer.intervals["mean"].low <= least and most <= answer.intervals["mean"].high
    broken = asked(f"mean <= {(least + most) / 2}").judged
    assert broken is not None and broken.witness is not None
    (mean, _), *_ = student.predict(broken.witness[None])["predictive_normal"].tolist()
    assert mean > (least + most) / 2

    with pytest.raises(ConfigError, match="found str, expected a student; ask a teacher by"):
        gn.certify_box("boxes", {}, dataset)
    other = gn.load_dataset(gn.load_space("diabetes_mlp"))
    with pytest.raises(DataError, match="found a student of another dataset"):
        gn.certify_box(student, {}, other)


def test_a_class_has_no_middle_to_stay_in_where_there_are_several_boxes(tmp_path: Path) -> None:
    rows = [f"{number / 8},{('red', 'blue')[number % 2]},{number % 3 > 0}" for number in range(60)]
    space = make_space(tmp_path / "colors", "x,color,label\n" + "\n".join(rows), {})
    dataset = gn.load_dataset(gn.load_space(space))
    genotype = Genotype("mlp", depth=1, width=6)
    spec = StudentSpec(
        family="mlp",
        input_shape=(3,),
        class_names=dataset.class_names,
        targets=(TARGETS["predictive"],),
        normalization=dataset.normalization,
        storage_dtype="float32",
        genotype=genotype.to_json(),
    )
    generator = torch.Generator().manual_seed(0)
    shapes = genotype.shapes(spec.network_shape, spec.layout.num_outputs)
    params = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    student = Student(spec, params)

    answer = gn.certify_box(student, {"inputs": {"x": [3, 3.1], "color": "red"}}, dataset)
    assert answer.judged is not None and answer.judged.verdict == "certified"
    with pytest.raises(ConfigError, match="certify_box: found no safe answers, and several"):
        gn.certify_box(student, {"inputs": {"x": 3}}, dataset)
    box = write_box(tmp_path, inputs={"x": 3})
    with pytest.raises(ConfigError, match="tasks: .*box.yaml: found no safe answers"):
        ask(space, box)
