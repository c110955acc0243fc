"""Exports answer as the live student does, in processes where this package cannot be imported."""

import io
import json
import runpy
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import gped_nas as gn
from gped_nas import rng
from gped_nas.data.normalization import AxisNormalization, Normalization
from gped_nas.distill.answers import output_names
from gped_nas.distill.student import StudentSpec, load_student
from gped_nas.errors import ConfigError, GateError
from gped_nas.export.folder import FORMATS, write_export
from gped_nas.export.parity import NUM_INPUTS, Predict, check_parity, probe
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.storage import read_tensors, storage_bytes
from gped_nas.targets.base import TARGETS
from tests.export.students import make_student, make_students, raw_inputs

LOADER = Path(__file__).parents[2] / "docs" / "examples" / "load_student.py"
ALONE = """\
import importlib.abc, json, runpy, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not for whoever serves a student")

sys.meta_path.insert(0, Blocked())
import numpy as np
{prepare}
inputs = np.load("inputs.npy")
for name, folder in json.loads(sys.argv[1]).items():
{load}
    parts = [predict(part) for part in np.split(inputs, np.cumsum([1, 7, 64]))]
    whole = {{key: np.concatenate([part[key] for part in parts]) for key in parts[0]}}
    np.savez(f"{{name}}.npz", **whole)
assert "gped_nas" not in sys.modules
"""
PREPARE = {
    "safetensors": f"loader = runpy.run_path({str(LOADER)!r})",
    "pt2": "import torch",
    "onnx": "import onnxruntime",
}
LOAD = {
    "safetensors": """\
    spec, params = loader["load"](folder)
    predict = lambda x: loader["predict"](spec, params, x)""",
    "pt2": """\
    module = torch.export.load(f"{folder}/student.pt2").module()
    predict = lambda x: {k: v.numpy() for k, v in module(torch.from_numpy(x)).items()}""",
    "onnx": """\
    session = onnxruntime.InferenceSession(f"{folder}/student.onnx")
    names = [output.name for output in session.get_outputs()]
    predict = lambda x: dict(zip(names, session.run(names, {"inputs": x})))""",
}
BLOCKED = {
    "safetensors": ["gped_nas", "onnxruntime"],
    "pt2": ["gped_nas", "safetensors"],
    "onnx": ["gped_nas", "torch"],
}
CONTAINER = {"weights.safetensors": 4_000, "student.pt2": 140_000, "student.onnx": 40_000}
"""Bytes that a file may have beside its weights.

Each int8 student would take more than 140,000 more in float32.
"""


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_students(tmp_path_factory.mktemp("students"))


@pytest.fixture(scope="module")
def exports(students: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    for name, source in students.items():
        write_export(source, root / name, list(FORMATS), lambda spec: f"# {spec.family}\n")
    return {name: root / name for name in students}


def alone(what: str, exports: dict[str, Path], folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """What exports say in a process of their own: 1,000 inputs in batches of 1, 7, 64 and 928."""
    np.save(folder / "inputs.npy", raw_inputs().numpy())
    code = ALONE.format(blocked=BLOCKED[what], prepare=PREPARE[what], load=LOAD[what])
    folders = json.dumps({name: str(path) for name, path in exports.items()})
    command = [sys.executable, "-I", "-c", code, folders]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=100)
    assert done.returncode == 0, done.stderr

    answers = {}
    for name in exports:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            answers[name] = dict(arrays)
    return answers


@pytest.mark.parametrize("what", FORMATS)
def test_a_fresh_process_without_this_package_agrees(
    what: str, students: dict[str, Path], exports: dict[str, Path], tmp_path: Path
) -> None:
    families = {load_student(folder).spec.family for folder in exports.values()}
    assert families == set(FAMILIES) - {"module"}  # a module is a teacher's network
    for name, answer in alone(what, exports, tmp_path).items():
        expected = load_student(students[name]).predict(raw_inputs())
        if what != "safetensors":
            assert set(answer) == set(expected)
        if name == "regression":
            assert len(answer["predictive_normal"]) == 1000
        else:
            assert len(answer["predictive"]) == 1000
            assert {"expected_entropy", "mutual_information"} <= set(answer)

        for key, value in answer.items():
            scale = max(1.0, float(expected[key].abs().max()))
            assert np.abs(value - expected[key].numpy()).max() <= 1e-5 * scale, (name, key)


def test_the_example_is_short() -> None:
    lines = LOADER.read_text().splitlines()
    assert len(lines) <= 125
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    imported = {line.split()[1].split(".")[0] for line in imports}
    assert imported - set(sys.stdlib_module_names) == {"torch", "numpy", "safetensors"}


def test_files_are_as_large_as_their_weights_and_a_container(exports: dict[str, Path]) -> None:
    for name, folder in exports.items():
        student = load_student(folder)
        files = student.spec.about["files"]
        stored = read_tensors(folder / "weights.safetensors")
        weights_bytes = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())

        assert set(files) == {file_format.file for file_format in FORMATS.values()}
        for file, facts in files.items():
            size = (folder / file).stat().st_size
            assert facts["bytes"] == size
            assert facts["weights_bytes"] == weights_bytes
            assert facts["overhead_bytes"] == size - weights_bytes
            assert size - weights_bytes < CONTAINER[file], (name, file)

        expected = storage_bytes(student.shapes, student.spec.storage_dtype)
        assert files["weights.safetensors"]["bytes"] == expected

        with zipfile.ZipFile(folder / "student.pt2") as archive:
            members = archive.infolist()
        weights = [member for member in members if "/data/weights/weight_" in member.filename]
        assert sum(member.file_size for member in weights) == weights_bytes, name


def test_an_onnx_file_says_what_it_takes_and_gives(exports: dict[str, Path]) -> None:
    for name, folder in exports.items():
        spec = load_student(folder).spec
        session = onnxruntime.InferenceSession(folder / "student.onnx")
        about = session.get_modelmeta().custom_metadata_map

        assert json.loads(about["classes"]) == list(spec.class_names), name
        assert json.loads(about["input_shape"]) == session.get_inputs()[0].shape[1:]
        assert json.loads(about["normalization"]) == spec.normalization.to_json()
        assert json.loads(about["outputs"]) == [output.name for output in session.get_outputs()]
        assert about["input_dtype"] == "float32" and about["version"] == gn.__version__
        assert about["input_layout"] == ("NCHW" if len(spec.input_shape) == 3 else "ND")
        assert "raw" in about["input_range"]
        assert session.get_modelmeta().producer_name == "gped-nas"


def test_weights_stay_in_their_storage_type(exports: dict[str, Path]) -> None:
    for name, folder in exports.items():
        stored = read_tensors(folder / "weights.safetensors")
        model = onnx.load(folder / "student.onnx")
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        expected = [tensor.numpy() for tensor in stored.values()]
        assert sorted(map(type_and_shape, arrays)) == sorted(map(type_and_shape, expected))

        if name.startswith("float16"):
            assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
        if name.startswith("int8"):
            check_int8(stored)


@pytest.mark.parametrize("what", ["onnx", "pt2"])
def test_a_graph_of_bytes_takes_pictures_as_cameras_give_them(what: str, tmp_path: Path) -> None:
    """Three channels with means of their own: a wrong order of axes would be seen."""
    normalization = AxisNormalization((90.0, 120.0, 30.0), (70.0, 20.0, 40.0))
    genotype = Genotype("cnn", depth=1, width=4, kernel=3)
    source = make_student(
        tmp_path / "a", genotype, shape=(3, 8, 6), normalization=normalization, dtype="int8"
    )
    folder = tmp_path / "taken"
    files = write_export(
        source, folder, ["safetensors", what], lambda spec: str(spec.about["files"]), inputs="bytes"
    )
    file = f"student.{what}"
    assert files[file]["inputs"] == "bytes" and "inputs" not in files["weights.safetensors"]

    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    if what == "onnx":
        session = onnxruntime.InferenceSession(folder / file)
        names = [output.name for output in session.get_outputs()]
        answers = dict(zip(names, session.run(names, {"inputs": pictures}), strict=True))
        about = session.get_modelmeta().custom_metadata_map
        assert (about["input_layout"], about["input_dtype"]) == ("NHWC", "uint8")
        assert json.loads(about["input_shape"]) == [8, 6, 3] == session.get_inputs()[0].shape[1:]
    else:
        module = torch.export.load(folder / file).module()
        answers = {name: y.numpy() for name, y in module(torch.from_numpy(pictures)).items()}

    raw = pictures.transpose(0, 3, 1, 2).astype(np.float32)
    expected = load_student(folder).predict(raw)
    for name, value in answers.items():
        assert np.abs(value - expected[name].numpy()).max() <= 1e-5, name


def test_bytes_are_refused_where_they_are_none(tmp_path: Path) -> None:
    cases: list[tuple[list[str], str, dict[str, Any], str]] = [
        (["safetensors"], "bytes", {}, "add to onnx"),
        (["onnx"], "floats", {}, "expected one of float32, bytes"),
        (["onnx"], "bytes", {"shape": (5,)}, "expected pictures"),
    ]
    # from 0 to 1, from -1 to 1, and standardized
    for mean, std in ((0.5, 0.3), (0.1, 0.9), (0.01, 1.01)):
        normalization = Normalization(mean, std)
        cases.append((["onnx"], "bytes", {"normalization": normalization}, "are no bytes"))
    for i, (formats, inputs, changes, message) in enumerate(cases):
        source = make_student(tmp_path / str(i), Genotype("mlp", depth=0), **changes)
        with pytest.raises(ConfigError, match=message):
            write_export(source, tmp_path / "e", formats, lambda spec: "", inputs=inputs)  # type: ignore[arg-type]
    assert not (tmp_path / "e").exists()


def type_and_shape(array: np.ndarray) -> tuple[str, tuple[int, ...]]:
    return str(array.dtype), array.shape


def check_int8(stored: dict[str, torch.Tensor]) -> None:
    """Weights are int8 with a scale for each output, and all else is float32."""
    for name, tensor in stored.items():
        if tensor.dim() > 1:
            assert tensor.dtype == torch.int8, name
            assert stored[f"{name}.scale"].shape == tensor.shape[:1], name
        else:
            assert tensor.dtype == torch.float32, name


def test_exports_hold_windows_and_gains(exports: dict[str, Path]) -> None:
    """What is checked of weights is checked of convolutions and of norms."""
    cnn = read_tensors(exports["int8-cnn"] / "weights.safetensors")
    resnet = read_tensors(exports["int8-resnet"] / "weights.safetensors")
    for stored in (cnn, resnet):
        assert any(tensor.dim() == 4 for tensor in stored.values())
    assert any(name.endswith(".gain") for name in resnet)


def test_parity_is_told_with_the_export(exports: dict[str, Path]) -> None:
    for folder in exports.values():
        spec = load_student(folder).spec
        for file, facts in spec.about["files"].items():
            parity = facts["parity"]
            assert parity["inputs"] == NUM_INPUTS == 1000
            assert parity["batch_sizes"][:3] == [1, 7, 64]

            tolerance = 0 if file == "weights.safetensors" else 1e-5
            assert set(parity["difference"]) == set(output_names(spec))
            assert max(parity["difference"].values()) <= tolerance


def test_nothing_of_the_machine_that_exported_is_in_a_file(exports: dict[str, Path]) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for folder in exports.values():
        with zipfile.ZipFile(folder / "student.pt2") as archive:
            parts = [archive.read(name) for name in archive.namelist()]
            filled = [member.filename for member in archive.infolist() if member.file_size]
        assert [name for name in filled if name.endswith((".pkl", ".pt"))] == []

        for data in (*parts, (folder / "student.onnx").read_bytes()):
            assert here not in data and b"graph.py" not in data


def test_a_file_that_answers_otherwise_is_refused(students: dict[str, Path]) -> None:
    student = load_student(students["float16-cnn"])

    def off(x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Wrong in the batch of seven alone."""
        outputs = student.predict(x)
        error = 2e-5 if len(x) == 7 else 0.0
        return {**outputs, "expected_entropy": outputs["expected_entropy"] + error}

    def not_a_number(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: value * float("nan") for name, value in student.predict(x).items()}

    def incomplete(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"predictive": student.predict(x)["predictive"]}

    parity = check_parity(student, lambda x: student.predict(x), "x", tolerance=0)
    assert max(parity["difference"].values()) == 0

    message = "x: 'expected_entropy' differs .* by 2.*e-05 on 1000 inputs"
    with pytest.raises(GateError, match=message):
        check_parity(student, off, "x")
    with pytest.raises(GateError, match="differs from the live student by inf"):
        check_parity(student, not_a_number, "x")
    message = "gives .'predictive'., expected .'expected_entropy', 'mutual"
    with pytest.raises(GateError, match=message):
        check_parity(student, incomplete, "x")


def test_what_fails_parity_is_not_written(
    students: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = FORMATS["safetensors"]

    def predict(spec: StudentSpec, data: bytes) -> Predict:
        answer = exact.predict(spec, data)
        return lambda x: {name: value + 1e-7 for name, value in answer(x).items()}

    monkeypatch.setitem(FORMATS, "safetensors", replace(exact, predict=predict))
    with pytest.raises(GateError, match="weights.safetensors: .* it was not written"):
        write_export(students["float16-cnn"], tmp_path / "x", ["safetensors"], lambda spec: "")
    assert not (tmp_path / "x").exists()


def test_the_probe_is_spread_as_the_training_inputs_were(students: dict[str, Path]) -> None:
    x = probe(load_student(students["float16-cnn"]))
    assert x.shape == (NUM_INPUTS, 1, 8, 8)
    assert float(x.mean()) == pytest.approx(90, abs=1)
    assert float(x.std()) == pytest.approx(70, abs=1)


TABLE = AxisNormalization((40.0, 5e4, 0.0), (12.0, 2e4, 1e-3))
PICTURES = AxisNormalization((100.0, 120.0, 90.0), (60.0, 70.0, 50.0))


@pytest.mark.parametrize(
    ("genotype", "shape", "normalization"),
    [
        (Genotype("mlp", depth=1, width=3), (3,), TABLE),
        (Genotype("cnn", depth=1, width=[4], kernel=3, pool=[2]), (3, 8, 8), PICTURES),
    ],
)
def test_columns_and_channels_are_normalized_inside_every_format(
    genotype: Genotype, shape: tuple[int, ...], normalization: AxisNormalization, tmp_path: Path
) -> None:
    folder = make_student(tmp_path / "s", genotype, shape=shape, normalization=normalization)
    student = load_student(folder)
    assert student.spec.normalization == normalization
    # write_export compares each file with the live student and refuses a difference
    write_export(folder, tmp_path / "x", list(FORMATS), lambda spec: "")

    loader = runpy.run_path(str(LOADER))
    inputs = normalization.invert(torch.randn((50, *shape), generator=rng.generator(0, "x")))
    told = loader["predict"](*loader["load"](tmp_path / "x"), inputs.numpy())
    expected = student.predict(inputs)["predictive"]
    assert np.abs(told["predictive"] - expected.numpy()).max() < 1e-5
    # a student that saw one pair for all would be sure of everything
    assert float(expected.amax(1).mean()) < 0.95


def test_labels_far_from_zero_keep_their_digits(tmp_path: Path) -> None:
    genotype = Genotype("mlp", depth=1, width=3)
    folder = make_student(
        tmp_path / "s",
        genotype,
        targets=("predictive_normal",),
        class_names=(),
        label_normalization=Normalization(1.7e12, 1e3),
    )
    mean = load_student(folder).predict(raw_inputs(50))["predictive_normal"][:, 0]
    assert mean.dtype == torch.float64 and 1 < float(mean.std()) < 1e4
    write_export(folder, tmp_path / "x", ["pt2", "onnx"], lambda spec: "")


def test_mutual_information_is_given_wherever_its_parts_are(
    students: dict[str, Path], tmp_path: Path
) -> None:
    outputs = load_student(students["float16-cnn"]).predict(raw_inputs(20))
    entropy = torch.special.entr(outputs["predictive"]).sum(-1, keepdim=True)
    expected = entropy - outputs["expected_entropy"]
    assert torch.allclose(outputs["mutual_information"], expected, atol=1e-6)

    folder = make_student(tmp_path / "a", Genotype("mlp", depth=0), targets=("predictive",))
    assert output_names(load_student(folder).spec) == ("predictive",)
    assert output_names(load_student(students["regression"]).spec) == ("predictive_normal",)


def test_an_empty_batch_gives_nothing(exports: dict[str, Path]) -> None:
    folder = exports["int8-mlp"]
    data = io.BytesIO((folder / "student.pt2").read_bytes())
    assert torch.export.load(data).module()(raw_inputs(0))["predictive"].shape == (0, 3)


def test_the_documents_name_every_output_and_format() -> None:
    text = (LOADER.parents[1] / "export.md").read_text()
    for name in (*TARGETS, *FORMATS):
        assert f"| `{name}` |" in text
    for file_format in FORMATS.values():
        assert f"`{file_format.file}`" in text
