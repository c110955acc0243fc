"""Imported samples: weights and predictions are read as they are meant, or refused."""

import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DataError
from gped_nas.models.storage import encode
from gped_nas.posterior.base import flatten
from gped_nas.posterior.imported import (
    ImportConfig,
    content_digest,
    imported,
    is_predictions,
    read_predictions,
    read_weights,
)
from tests.scenarios import NUM_CLASSES, classifier

SHAPES = classifier().shapes
NUM = 3


def samples(num=NUM):
    generator = rng.generator(0, "import")
    return {name: torch.randn(num, *shape, generator=generator) for name, shape in SHAPES.items()}


def write(path: Path, tensors) -> Path:
    path.write_bytes(safetensors.torch.save(tensors))
    return path


def predictions(**changed):
    generator = np.random.default_rng(0)
    prob = generator.dirichlet(np.ones(NUM_CLASSES), (NUM, 5)).astype(np.float32)
    arrays = {"inputs": generator.normal(size=(5, 4)).astype(np.float32), "prob": prob, **changed}
    return {name: array for name, array in arrays.items() if array is not None}


def write_npz(path: Path, arrays) -> Path:
    np.savez(path, **arrays)
    return path


class TestWeights:
    def test_stacked_samples_in_order(self, tmp_path):
        tensors = samples()
        weight = torch.tensor([1.0, 0.0, 3.0])
        path = write(tmp_path / "s.safetensors", {**tensors, "weight": weight})

        theta, weight = read_weights(path, SHAPES)
        assert theta.shape == (NUM, sum(t[0].numel() for t in tensors.values()))
        for i in range(NUM):
            assert torch.equal(theta[i], flatten({n: tensors[n][i] for n in SHAPES}))
        assert weight.tolist() == [1.0, 0.0, 3.0]
        assert (theta.dtype, weight.dtype) == (torch.float32, torch.float64)
        assert not is_predictions(path)

    def test_names_decide_over_order(self, tmp_path):
        # both layers square: only the names tell them apart
        shapes = {"layers.0.weight": (2, 2), "layers.1.weight": (2, 2)}
        tensors = {
            "layers.1.weight": torch.ones(1, 2, 2),
            "layers.0.weight": torch.zeros(1, 2, 2),
        }
        path = write(tmp_path / "s.safetensors", tensors)
        assert read_weights(path, shapes)[0].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]

    @pytest.mark.parametrize("prefix", ["", "model.", "net.0."])
    def test_the_state_of_a_sequential_fits_by_its_order(self, tmp_path, prefix):
        tensors = samples()
        names = [f"{prefix}{n}" for n in ("0.weight", "0.bias", "2.weight", "2.bias")]
        path = write(tmp_path / "s.safetensors", dict(zip(names, tensors.values(), strict=True)))
        expected = write(tmp_path / "t.safetensors", tensors)
        assert torch.equal(read_weights(path, SHAPES)[0], read_weights(expected, SHAPES)[0])

    def test_layers_are_ordered_by_number_not_by_text(self, tmp_path):
        shapes, tensors = {}, {}
        for i in range(11):
            for kind, shape in (("weight", (2, 2)), ("bias", (2,))):
                shapes[f"layers.{i}.{kind}"] = shape
                tensors[f"{2 * i}.{kind}"] = torch.full((1, *shape), float(i))

        theta, _ = read_weights(write(tmp_path / "s.safetensors", tensors), shapes)
        assert theta[0].tolist() == [float(i) for i in range(11) for _ in range(6)]

    def test_a_folder_of_files_in_the_order_of_their_names(self, tmp_path):
        tensors = samples()
        folder = tmp_path / "samples"
        folder.mkdir()
        for i, name in enumerate(["a", "b", "c"]):
            write(folder / f"{name}.safetensors", {n: t[i] for n, t in tensors.items()})
        (folder / "notes.txt").write_text("not a sample")

        theta, weight = read_weights(folder, SHAPES)
        expected, _ = read_weights(write(tmp_path / "s.safetensors", tensors), SHAPES)
        assert torch.equal(theta, expected)
        assert weight.tolist() == [1.0, 1.0, 1.0]
        assert not is_predictions(folder)

    def test_files_at_int8_are_what_they_decode_to(self, tmp_path):
        folder = tmp_path / "samples"
        folder.mkdir()
        params = {n: t[0] for n, t in samples().items()}
        write(folder / "a.safetensors", encode(params, "int8"))
        theta, _ = read_weights(folder, SHAPES)
        assert float((theta[0] - flatten(params)).abs().max()) < 0.02

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"layers.0.weight": torch.zeros(NUM, 6, 4)},
                r"found tensors of shapes .*\(6, 4\).* expected",
            ),
            (
                {"layers.1.bias": torch.zeros(NUM + 1, 3)},
                "expected the number of posterior samples",
            ),
            ({"layers.1.bias": torch.zeros(())}, "expected the number of posterior samples"),
            ({"extra": torch.zeros(NUM, 2)}, "teacher.genotype"),
            ({"layers.1.bias": torch.full((NUM, 3), torch.nan)}, "not finite"),
            ({"layers.1.bias": torch.full((NUM, 3), torch.inf)}, "not finite"),
            ({"layers.1.bias": torch.full((NUM, 3), 1e300, dtype=torch.float64)}, "not finite"),
            ({"weight": torch.tensor([1.0, torch.nan, 1.0])}, "weight"),
            ({"weight": torch.tensor([1.0, -1.0, 1.0])}, "weight"),
            ({"weight": torch.zeros(NUM)}, "weight"),
            ({"weight": torch.ones(NUM + 1)}, "weight: found 4 entries, expected 3"),
            ({"weight": torch.full((NUM,), 1.5e308, dtype=torch.float64)}, "weight"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path, change, message):
        path = write(tmp_path / "s.safetensors", {**samples(), **change})
        with pytest.raises(DataError, match=message) as caught:
            read_weights(path, SHAPES)
        assert str(path) in str(caught.value)

    def test_no_samples_and_no_tensors_are_refused(self, tmp_path):
        no_samples = {n: t[:0] for n, t in samples().items()}
        for tensors in (no_samples, {"weight": torch.ones(3)}, {}):
            with pytest.raises(DataError, match="samples"):
                read_weights(write(tmp_path / "s.safetensors", tensors), SHAPES)

        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"no \.safetensors file"):
            read_weights(tmp_path / "empty", SHAPES)
        with pytest.raises(DataError, match="no such file"):
            read_weights(tmp_path / "absent.safetensors", SHAPES)

    def test_a_flipped_byte_anywhere_is_a_data_error_or_other_numbers(self, tmp_path):
        whole = safetensors.torch.save(samples())
        path = tmp_path / "s.safetensors"
        refused = 0
        for i in range(0, len(whole), 3):
            damaged = bytearray(whole)
            damaged[i] ^= 0x41
            path.write_bytes(damaged)
            try:
                is_predictions(path)
                read_weights(path, SHAPES)
            except DataError:
                refused += 1
        assert refused > 50

    def test_resuming_goes_on_with_the_next_sample(self, tmp_path):
        weight = torch.tensor([1.0, 2.0, 3.0])
        path = write(tmp_path / "s.safetensors", {**samples(), "weight": weight})
        cfg = ImportConfig(name="import", path=str(path))

        whole = list(imported(classifier(), cfg, generator=rng.generator(0)))
        assert [s.sample.weight for s in whole] == [1.0, 2.0, 3.0]
        rest = list(imported(classifier(), cfg, generator=rng.generator(0), state=whole[0].state))
        assert len(rest) == 2
        assert torch.equal(rest[0].sample.theta_W, whole[1].sample.theta_W)


class TestPredictions:
    def test_probabilities_become_log_probabilities(self, tmp_path):
        arrays = predictions(weight=np.array([1.0, 2.0, 3.0]))
        read = read_predictions(write_npz(tmp_path / "p.npz", arrays), NUM_CLASSES)
        np.testing.assert_allclose(read.log_prob_SMC.exp().numpy(), arrays["prob"], atol=1e-6)
        np.testing.assert_array_equal(read.inputs.numpy(), arrays["inputs"])
        assert read.weight_S.tolist() == [1.0, 2.0, 3.0]
        assert is_predictions(tmp_path / "p.npz")

    def test_log_probabilities_and_safetensors_are_the_same(self, tmp_path):
        arrays = predictions()
        logs = {"inputs": arrays["inputs"], "log_prob": np.log(arrays["prob"])}
        expected = read_predictions(write_npz(tmp_path / "p.npz", arrays), NUM_CLASSES).log_prob_SMC
        of_logs = read_predictions(write_npz(tmp_path / "q.npz", logs), NUM_CLASSES).log_prob_SMC
        torch.testing.assert_close(of_logs, expected)

        tensors = {n: torch.from_numpy(a) for n, a in arrays.items()}
        path = write(tmp_path / "p.safetensors", tensors)
        assert is_predictions(path)
        assert torch.equal(read_predictions(path, NUM_CLASSES).log_prob_SMC, expected)

    def test_impossible_classes_stay_impossible_and_rows_are_normalized(self, tmp_path):
        prob = np.zeros((1, 2, 3), np.float32)
        prob[:, :, 0] = 1.0005  # within rounding of one, so it is normalized
        arrays = {"inputs": np.zeros((2, 4)), "prob": prob}
        log_prob = read_predictions(write_npz(tmp_path / "p.npz", arrays), 3).log_prob_SMC
        assert log_prob[0, 0].tolist() == [0.0, -np.inf, -np.inf]

        # a logarithm says more than the probability that it stands for
        arrays = {"inputs": np.zeros((2, 4)), "log_prob": np.array([[[0.0, -800.0, -np.inf]] * 2])}
        log_prob = read_predictions(write_npz(tmp_path / "q.npz", arrays), 3).log_prob_SMC
        assert log_prob[0].tolist() == [[0.0, -800.0, -np.inf]] * 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"inputs": None}, "expected 'inputs' and one of"),
            ({"prob": None}, "expected 'inputs' and one of"),
            ({"log_prob": np.zeros((NUM, 5, 3))}, "expected 'inputs' and one of"),
            (
                {"inputs": np.zeros((4, 4), np.float32)},
                r"shape \(3, 5, 3\), expected \(samples, 4, 3\)",
            ),
            ({"inputs": np.full((5, 4), np.nan)}, "inputs: expected finite"),
            ({"inputs": np.zeros((5, 4), np.complex64)}, "inputs: found dtype complex64"),
            ({"inputs": np.zeros(5)}, "inputs"),
            ({"inputs": np.array(1.0)}, "inputs"),
            ({"inputs": np.array(["a", "b"])}, "inputs: found dtype <U1, expected real numbers"),
            ({"inputs": np.array([{}, []], object)}, "inputs: not a readable npz.* no objects"),
            ({"prob": np.full((NUM, 5, 4), 0.25)}, "classes; give one number for each class"),
            ({"prob": np.full((5, 3), 1 / 3)}, r"classes; .* one member as array\[None\]"),
            ({"prob": np.full((5, 3, 2), 1 / 3)}, r"moveaxis\(array, -1, 0\)"),
            ({"prob": np.zeros((0, 5, 3))}, "classes"),
            ({"prob": np.full((NUM, 5, 3), 0.5)}, "do not sum to 1 .* from 1.5 to 1.5"),
            ({"prob": np.zeros((NUM, 5, 3))}, "do not sum to 1"),
            (
                {"prob": np.full((NUM, 5, 3), np.nan)},
                "; look for inputs or weights",
            ),
            ({"prob": np.log(np.full((NUM, 5, 3), 1 / 3))}, "are log-probabilities: call"),
            ({"prob": np.tile([2.0, -1.0, 0.0], (NUM, 5, 1))}, "no probabilities"),
            ({"prob": np.full((NUM, 5, 3), 1 / 3 + 0j)}, "complex"),
            ({"prob": None, "log_prob": np.full((NUM, 5, 3), 800.0)}, "no probabilities"),
            ({"prob": None, "log_prob": np.full((NUM, 5, 3), 1 / 3)}, "sum to 1 .* 'prob'"),
            ({"prob": None, "log_prob": np.full((NUM, 5, 3), 0.5)}, "as log_softmax of the logits"),
            ({"weight": np.array([1.0, np.nan, 1.0])}, "weight"),
            ({"weight": np.array([1.0, np.inf, 1.0])}, "weight"),
            ({"weight": np.zeros(NUM)}, "weight"),
            ({"weight": np.ones(NUM - 1)}, "weight: found 2 entries, expected 3"),
        ],
    )
    def test_what_is_no_ensemble_is_refused(self, tmp_path, change, message):
        path = write_npz(tmp_path / "p.npz", predictions(**change))
        with pytest.raises(DataError, match=message) as caught:
            read_predictions(path, NUM_CLASSES)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2", np.longdouble])
    def test_other_dtypes_and_byte_orders_are_read(self, tmp_path, dtype):
        arrays = predictions()
        changed = predictions(inputs=arrays["inputs"].astype(dtype))
        changed["prob"] = arrays["prob"].astype(dtype)
        read = read_predictions(write_npz(tmp_path / "p.npz", changed), NUM_CLASSES)
        expected = read_predictions(write_npz(tmp_path / "q.npz", arrays), NUM_CLASSES)
        tolerance = {"rtol": 0, "atol": 0.02 if dtype == "<f2" else 1e-6}
        torch.testing.assert_close(read.inputs.float(), expected.inputs, **tolerance)
        torch.testing.assert_close(read.log_prob_SMC, expected.log_prob_SMC, **tolerance)

    def test_other_arrays_beside_are_ignored(self, tmp_path):
        beside = {"class_names": np.array(["a", "b", "c"]), "notes": np.array([{}], object)}
        read = read_predictions(write_npz(tmp_path / "p.npz", predictions(**beside)), NUM_CLASSES)
        expected = read_predictions(write_npz(tmp_path / "q.npz", predictions()), NUM_CLASSES)
        assert torch.equal(read.log_prob_SMC, expected.log_prob_SMC)

    @pytest.mark.parametrize("decimals", [2, 3, 4])
    def test_rounded_numbers_are_normalized(self, tmp_path, decimals):
        prob = np.random.default_rng(1).dirichlet(np.ones(20), (NUM, 5))
        inputs = predictions()["inputs"]
        for name, values in (("prob", prob), ("log_prob", np.log(prob))):
            rounded = {"inputs": inputs, name: values.round(decimals).astype(np.float32)}
            read = read_predictions(write_npz(tmp_path / f"{name}.npz", rounded), 20).log_prob_SMC
            torch.testing.assert_close(read.exp().sum(-1), torch.ones(NUM, 5))
            assert abs(read.exp().numpy() - prob).max() < 20 * 10**-decimals

        # what is that far off without having been rounded is no distribution
        off = {"inputs": inputs, "prob": prob * (1 + 2e-3)}
        with pytest.raises(DataError, match="do not sum to 1"):
            read_predictions(write_npz(tmp_path / "off.npz", off), 20)

    def test_a_scalar_of_safetensors_is_refused(self, tmp_path):
        tensors = {n: torch.from_numpy(a) for n, a in predictions(inputs=np.float32([1])).items()}
        path = write(tmp_path / "p.safetensors", {**tensors, "inputs": torch.tensor(1.0)})
        with pytest.raises(DataError, match="inputs"):
            read_predictions(path, NUM_CLASSES)

    def test_nothing_is_unpickled(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "boom",))

        pickled = tmp_path / "p.npz"
        pickled.write_bytes(pickle.dumps(Bomb()))
        arrays = predictions(inputs=np.array([Bomb()], object))
        for path in (pickled, write_npz(tmp_path / "q.npz", arrays)):
            with pytest.raises(DataError, match="not a readable npz"):
                read_predictions(path, NUM_CLASSES)
        assert not (tmp_path / "boom").exists()

    def test_files_that_are_no_archive_are_refused(self, tmp_path):
        np.save(tmp_path / "array.npy", np.zeros(3))
        array = (tmp_path / "array.npy").read_bytes()
        whole = write_npz(tmp_path / "whole.npz", predictions()).read_bytes()
        half = whole[: len(whole) // 2]
        with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
            archive.writestr("inputs.npy", "not an array")
        text = (tmp_path / "text.npz").read_bytes()

        path = tmp_path / "p.npz"
        for content in (b"", b"PK", half, array, text):
            path.write_bytes(content)
            with pytest.raises(DataError, match=r"p\.npz"):
                read_predictions(path, NUM_CLASSES)

    def test_a_flipped_byte_anywhere_is_a_data_error_or_other_numbers(self, tmp_path):
        whole = write_npz(tmp_path / "whole.npz", predictions()).read_bytes()
        path = tmp_path / "p.npz"
        refused = 0
        for i in range(0, len(whole), 2):
            for value in (0x01, 0xFF):
                damaged = bytearray(whole)
                damaged[i] ^= value
                path.write_bytes(damaged)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        read_predictions(path, NUM_CLASSES)
                    except DataError:
                        refused += 1
        assert refused > len(whole) // 4


def test_content_digest_covers_names_and_bytes(tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    write(folder / "a.safetensors", {"w": torch.zeros(2)})
    digest = content_digest(folder)
    assert content_digest(folder) == digest

    digests = {digest}
    write(folder / "b.safetensors", {"w": torch.ones(2)})
    digests.add(content_digest(folder))
    (folder / "b.safetensors").rename(folder / "c.safetensors")
    digests.add(content_digest(folder))
    write(folder / "c.safetensors", {"w": torch.full((2,), 2.0)})
    digests.add(content_digest(folder))
    assert len(digests) == 4

    with pytest.raises(DataError, match="no such file"):
        content_digest(tmp_path / "absent")


def test_normalization_is_given_whole_or_not_at_all():
    settings = {"name": "import", "path": "x", "input_mean": 0.5}
    with pytest.raises(ConfigError, match="both or neither"):
        parse(ImportConfig, settings, "here")
    with pytest.raises(ConfigError, match="input_std"):
        parse(ImportConfig, {**settings, "input_std": 0.0}, "here")
