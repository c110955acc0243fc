"""Averages over posterior samples: by hand, and of a stream, where they are cached."""

import shutil

import pytest
import torch

from gped_nas.errors import ConfigError
from gped_nas.stream.reader import Stream
from gped_nas.targets.base import TARGETS, DerivedTarget, LearnedTarget
from gped_nas.targets.expectations import expect, expect_all, sample_values, stream_expectations
from gped_nas.targets.formulas import entropy
from gped_nas.targets.mean import UtilitySettings, mean_target, utility
from tests.scenarios import tree
from tests.stream.test_reader import ABOUT, VIEW, other_view
from tests.stream.test_writer import build, view


def test_expectations_by_hand():
    """Samples (.9, .1), (.1, .9), (.8, .2) of one example, in nats.

    H(.9) = .325083, H(.8) = .500402: E[H] = (2 * .325083 + .500402) / 3 = .383523; the average is
    (.6, .4) with H = .673012, so MI = .673012 - .383523 = .289489. E[p^2] = (.81 + .01 + .64) / 3 =
    .486667 and (.01 + .81 + .04) / 3 = .286667; Var = .486667 - .36 = .126667, the same for both
    classes; the Dirichlet's precision is (1 - .773333) / (.773333 - .52) = .894737, its
    concentrations (.6, .4) * .894737 = (.536842, .357895).
    """
    prob = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]], [[0.8, 0.2]]], dtype=torch.float64)
    weight = torch.ones(3)
    mean = expect(TARGETS["predictive"], prob.log(), weight)
    expected_entropy = expect(TARGETS["expected_entropy"], prob.log(), weight)
    assert mean[0].tolist() == pytest.approx([0.6, 0.4])
    assert expected_entropy.item() == pytest.approx(0.383523, abs=5e-7)
    assert entropy(mean.log()).item() - expected_entropy.item() == pytest.approx(0.289489, abs=5e-7)

    def expectation(name):
        return expect(TARGETS[name], prob.log(), weight)[0].tolist()

    assert expectation("mutual_information") == pytest.approx([0.289489], abs=5e-7)
    assert expectation("second_moment") == pytest.approx([0.486667, 0.286667], abs=5e-7)
    assert expectation("variance") == pytest.approx([0.126667, 0.126667], abs=5e-7)
    assert expectation("dirichlet") == pytest.approx([0.536842, 0.357895], abs=5e-7)
    assert expectation("utility") == pytest.approx([0.4, 0.6])


def test_weights_count_on_any_scale():
    log_prob = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]], dtype=torch.float64).log()
    weight = torch.tensor([3.0, 1.0], dtype=torch.float64)
    for scale in (1, 1e-8, 1e8):
        mean = expect(TARGETS["predictive"], log_prob, scale * weight)
        assert mean[0].tolist() == pytest.approx([0.7, 0.3])

    whole = expect(TARGETS["predictive"], log_prob, torch.tensor([3, 1]))
    assert whole[0].tolist() == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize("weight", [[0.0, 0.0], [float("nan"), 1.0], [-1.0, 0.0]])
def test_weights_without_a_positive_sum_are_refused(weight):
    message = "weights of posterior samples: found a sum of .*more than 0"
    with pytest.raises(ConfigError, match=message):
        expect(TARGETS["predictive"], torch.zeros(2, 1, 2), torch.tensor(weight))


def test_quantiles_of_a_stream_are_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="kind quantile"):
        stream_expectations(None, ["quantile"], "pool-clean")


def test_all_targets_at_once_are_each_alone():
    log_prob = torch.randn((4, 6, 3), generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    weight = torch.tensor([1.0, 2.0, 0.5, 4.0])
    names = [name for name, target in TARGETS.items() if target.prediction == "log_prob"]
    names.remove("quantile")
    averages = expect_all(names, log_prob, weight)
    assert list(averages) == names
    for name in names:
        assert torch.equal(averages[name], expect(TARGETS[name], log_prob, weight)), name


def test_what_is_derived_reads_the_listed_target_as_students_predict_it():
    """Costs of the list, not of the registry; mean and variance, not the averaged moments."""
    dear = utility(UtilitySettings(costs=((0.0, 9.0), (1.0, 0.0))))
    dearest = DerivedTarget(
        name="dearest",
        label="cost of the dearest action",
        requires=("utility",),
        derive=lambda values: values["utility"].amax(-1, keepdim=True),
    )
    log_prob = torch.tensor([[[0.75, 0.25]], [[0.25, 0.75]]]).log()
    averages = expect_all([dear, dearest], log_prob, torch.ones(2))
    assert averages["dearest"].tolist() == [[4.5]]

    spread = DerivedTarget(
        name="spread",
        label="standard deviation",
        requires=("predictive_normal",),
        prediction="normal",
        derive=lambda values: values["predictive_normal"][..., 1:].sqrt(),
    )
    normal = torch.tensor([[[3.0, 1.0]], [[5.0, 1.0]]], dtype=torch.float64)
    assert expect(spread, normal, torch.ones(2)).item() == pytest.approx(2**0.5)


def test_single_samples_say_what_has_a_loss():
    prob = torch.tensor([[0.75, 0.25]])
    targets = [TARGETS[name] for name in ("predictive", "mutual_information", "quantile")]
    values = sample_values(targets, prob.log())
    assert set(values) == {"predictive", "quantile"}
    torch.testing.assert_close(values["quantile"], prob)


@pytest.mark.parametrize(
    ("name", "version", "at_probe"),
    [
        ("predictive", 1, [0.090031, 0.244728, 0.665241]),
        ("expected_entropy", 1, [0.832396]),
        ("second_moment", 1, [0.008106, 0.059892, 0.442545]),
        ("utility", 1, [0.909969, 0.755272, 0.334759]),
        ("predictive_normal", 1, [-2.407606, 4.38896]),
        ("quantile", 1, [0.090031, 0.244728, 0.665241]),
        ("interval", 1, [0.090031, 0.244728, 0.665241]),
        # logits and their squares
        ("logit_variance", 1, [-1.0, 0.0, 1.0, 1.0, 0.0, 1.0]),
        ("factors", 1, [-1.0, 0.0, 1.0]),
        # of mean 1 and variance 4
        ("model_variance", 1, [1.0, 1.0, 4.0]),
        ("label_quantile", 1, [1.0, 4.0]),
        ("exceedance", 1, [0.691462]),
    ],
)
def test_a_target_that_comes_to_mean_something_else_raises_its_version(name, version, at_probe):
    """Logits 0, 1, 2. Whoever changes a number here raises the version.

    Else caches made before are taken for what they are not.
    """
    log_prob = torch.arange(3.0, dtype=torch.float64).log_softmax(-1)
    predicted = log_prob if name != "predictive_normal" else log_prob[:2]
    if name in ("model_variance", "label_quantile", "exceedance"):
        predicted = torch.tensor([1.0, 4.0], dtype=torch.float64)
    target = TARGETS[name]
    assert target.version == version
    assert target.values(predicted).tolist() == pytest.approx(at_probe, abs=1e-6)


def test_every_target_with_values_has_its_meaning_written_down():
    (table,) = test_a_target_that_comes_to_mean_something_else_raises_its_version.pytestmark
    written = {row[0] for row in table.args[1]}
    assert written == {n for n, target in TARGETS.items() if isinstance(target, LearnedTarget)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two chains in two segments of 4 and 2 samples, with a view."""
    root = tmp_path_factory.mktemp("streams")
    for num_samples in (4, 6):
        folder = build(root, num_samples)
    view(Stream(folder))
    return folder


@pytest.fixture
def folder(built, tmp_path):
    copy = tmp_path / built.name
    shutil.copytree(built, copy)
    return copy


@pytest.fixture
def reads(monkeypatch):
    """The blocks of predictions that were read, by the name of their view."""
    names = []
    blocks = Stream.prediction_blocks

    def counted(stream, name):
        for block in blocks(stream, name):
            names.append(name)
            yield block

    monkeypatch.setattr(Stream, "prediction_blocks", counted)
    return names


def average(folder, name=VIEW, num_samples=None):
    stream = Stream(folder, num_samples=num_samples)
    return stream_expectations(stream, ["predictive"], name)["predictive"]


class TestStream:
    def test_it_is_the_weighted_average_in_float64(self, folder):
        stream = Stream(folder)
        prob = stream.predictions(VIEW).double().exp()
        expected = (stream.weight_S[:, None, None] * prob).sum(0).float()
        torch.testing.assert_close(average(folder), expected, rtol=1e-6, atol=0)

        dtypes = []

        def values(log_prob):
            dtypes.append(log_prob.dtype)
            return log_prob.exp()

        stream_expectations(stream, [mean_target("noted", values)], VIEW)
        assert set(dtypes) == {torch.float64}

    def test_all_targets_share_one_read_and_are_computed_once(self, folder, reads):
        names = ["predictive", "expected_entropy", "second_moment", "dirichlet"]
        stream = Stream(folder)
        together = stream_expectations(stream, names, VIEW)
        assert reads == [VIEW, VIEW]  # one block a segment
        again = stream_expectations(Stream(folder), names, VIEW)
        assert len(reads) == 2
        for name in names:
            assert torch.equal(together[name], again[name])

    def test_a_device_computes_those_that_it_can(self, folder):
        """On ``meta`` nothing is computed: a target that refuses it is computed here."""
        device, devices = torch.device("meta"), []

        def values(log_prob):
            devices.append(log_prob.device.type)
            return log_prob.exp()

        stream = Stream(folder)
        with pytest.raises(NotImplementedError, match="meta tensor"):
            stream_expectations(stream, [mean_target("anywhere", values)], VIEW, device=device)
        assert devices[-1] == "meta"

        def values_here(log_prob):
            return values(log_prob) * torch.ones(3, device="cpu")

        target = mean_target("here", values_here)
        ours = stream_expectations(stream, [target], VIEW, device=device)["here"]
        assert devices[-1] == "cpu"
        assert torch.equal(ours, average(folder))

    def test_together_or_alone_gives_the_same_bits(self, folder):
        names = ["predictive", "expected_entropy", "utility"]
        together = stream_expectations(Stream(folder), names, VIEW)
        for name in names:
            shutil.rmtree(folder / "derived")
            alone = stream_expectations(Stream(folder), [name], VIEW)
            assert torch.equal(together[name], alone[name])

    def test_what_is_missing_alone_is_read_for(self, folder, reads):
        average(folder)
        stream_expectations(Stream(folder), ["predictive", "utility"], VIEW)
        assert len(reads) == 4
        assert len(list((folder / "derived").glob("*.npy"))) == 2

    def test_a_function_redefined_under_its_name_is_not_answered_from_the_cache(self, folder):
        def average_of(values):
            target = mean_target("moment", values, version=1)
            return stream_expectations(Stream(folder), [target], VIEW)["moment"]

        before = average_of(lambda log_prob: log_prob.exp())
        after = average_of(lambda log_prob: (2 * log_prob).exp())
        assert not torch.equal(before, after)

        prob = Stream(folder).predictions(VIEW).double().exp()
        expected = (Stream(folder).weight_S[:, None, None] * prob.square()).sum(0)
        torch.testing.assert_close(after, expected.float(), rtol=1e-6, atol=0)

    def test_a_raised_version_is_another_target(self, folder, reads):
        for version in (1, 2, 2, 1):
            target = mean_target("prob", torch.exp, version=version)
            stream_expectations(Stream(folder), [target], VIEW)
        assert len(reads) == 4  # two blocks for each version

    def test_settings_make_another_target(self, folder):
        cheap = utility(UtilitySettings(costs=((0, 1, 1), (1, 0, 1), (1, 1, 0))))
        dear = utility(UtilitySettings(costs=((0, 9, 9), (9, 0, 9), (9, 9, 0))))
        for _ in range(2):
            small = stream_expectations(Stream(folder), [cheap], VIEW)["utility"]
            large = stream_expectations(Stream(folder), [dear], VIEW)["utility"]
            torch.testing.assert_close(large, 9 * small)

    def test_it_is_one_of_the_samples_that_are_used(self, folder):
        whole = average(folder)
        short = average(folder, num_samples=3)
        expected = Stream(folder).predictions(VIEW)[:3].double().exp().mean(0).float()
        torch.testing.assert_close(short, expected, rtol=1e-6, atol=0)
        assert not torch.equal(whole, short)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda d: [p.write_bytes(p.read_bytes()[:-4]) for p in d.glob("*.npy")],
            lambda d: [p.write_bytes(p.read_bytes()[:-1] + b"\x7f") for p in d.glob("*.npy")],
            lambda d: [p.unlink() for p in d.glob("*.npy")],
            lambda d: [p.unlink() for p in d.glob("*.json")],
            lambda d: [p.write_text("{") for p in d.glob("*.json")],
            lambda d: [p.write_text("[]") for p in d.glob("*.json")],
            lambda d: [p.write_text('{"shape": 3}') for p in d.glob("*.json")],
            lambda d: [p.write_text('{"shape": ["a"], "content": ""}') for p in d.glob("*.json")],
            lambda d: [
                p.write_text('{"shape": [-24, -3], "content": ""}') for p in d.glob("*.json")
            ],
            lambda d: (shutil.rmtree(d), d.write_text("a file in its place")),
        ],
        ids=[
            "cut",
            "flip",
            "no array",
            "no note",
            "half",
            "list",
            "number",
            "text",
            "negative",
            "a file",
        ],
    )
    def test_a_corrupt_cache_is_computed_anew(self, folder, damage, reads):
        expected = average(folder)
        damage(folder / "derived")
        reads.clear()
        assert torch.equal(average(folder), expected)
        assert len(reads) == 2

        if (folder / "derived").is_dir():
            assert torch.equal(average(folder), expected)
            assert len(reads) == 2  # and cached again

    def test_an_average_over_another_is_computed_anew(self, folder):
        name = other_view(folder)
        expected = average(folder)
        average(folder, name)
        for suffix in (".npy", ".json"):
            (other,) = (folder / "derived").glob(f"*{name}*{suffix}")
            (mine,) = (folder / "derived").glob(f"*{VIEW}*{suffix}")
            shutil.copy(other, mine)
        assert torch.equal(average(folder), expected)

    def test_the_average_of_a_view_that_was_made_anew_is_made_anew(self, folder):
        name = other_view(folder)
        stale = average(folder, name)
        shutil.rmtree(folder / "views" / name)
        view(Stream(folder), name=name, about={**ABOUT, "inputs": "1" * 64})

        fresh = average(folder, name)
        assert torch.equal(fresh, average(folder))
        assert not torch.equal(fresh, stale)

    def test_deriving_touches_nothing_sealed(self, folder):
        before = {**tree(folder / "segments"), **tree(folder / "views")}
        average(folder)
        assert {**tree(folder / "segments"), **tree(folder / "views")} == before
