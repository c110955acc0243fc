import pytest
import torch

from gped_nas.errors import ConfigError, RegistryError
from gped_nas.targets.base import (
    TARGETS,
    check_targets,
    entropy,
    expect,
    head_slices,
    log_softmax,
    loss,
    predictions,
    stream_expectation,
)

BOTH = ("predictive", "expected_entropy")


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

    def found(name):
        return expect(TARGETS[name], prob.log(), weight)[0].tolist()

    assert found("mutual_information") == pytest.approx([0.289489], abs=5e-7)
    assert found("second_moment") == pytest.approx([0.486667, 0.286667], abs=5e-7)
    assert found("variance") == pytest.approx([0.126667, 0.126667], abs=5e-7)
    assert found("dirichlet") == pytest.approx([0.536842, 0.357895], abs=5e-7)
    assert found("utility") == pytest.approx([0.4, 0.6])


def test_concentrations_of_a_student_are_as_exact_as_its_raw_outputs():
    """Raw outputs up to 22: float32 rounds their differences by 1e-6, differences of probabilities
    by all there is.
    """
    names = ("predictive", "second_moment", "dirichlet")
    raw = 5 * torch.randn((4000, 6), generator=torch.Generator().manual_seed(0))
    single, double = predictions(raw, names, 3), predictions(raw.double(), names, 3)
    exact = double["dirichlet"]

    def worst(found):
        return ((found - exact).abs() / exact).max()

    assert worst(single["dirichlet"]) < 4e-6
    assert (
        worst(TARGETS["dirichlet"].derive(single)) > 1
    )  # why it is not computed from the student's averages
    assert torch.allclose(TARGETS["dirichlet"].derive(double), exact, rtol=1e-6)


def test_weights_count_on_any_scale():
    log_prob = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]], dtype=torch.float64).log()
    for scale in (1, 1e-8, 1e8):
        mean = expect(
            TARGETS["predictive"], log_prob, scale * torch.tensor([3.0, 1.0], dtype=torch.float64)
        )
        assert mean[0].tolist() == pytest.approx([0.7, 0.3])
    whole = expect(TARGETS["predictive"], log_prob, torch.tensor([3, 1]))
    assert whole[0].tolist() == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize("weight", [[0.0, 0.0], [float("nan"), 1.0], [-1.0, 0.0]])
def test_weights_without_a_positive_sum_are_refused(weight):
    with pytest.raises(
        ConfigError, match="weights of posterior samples: found a sum of .*more than 0"
    ):
        expect(TARGETS["predictive"], torch.zeros(2, 1, 2), torch.tensor(weight))


def test_quantiles_of_a_stream_are_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="kind quantile"):
        stream_expectation(None, "quantile", "pool-clean")


def test_log_probabilities_of_a_batch_in_either_layout():
    raw_PUB = 30 * torch.randn((3, 5, 4), generator=torch.Generator().manual_seed(0))
    for raw in (raw_PUB.mT, raw_PUB.mT.contiguous(), raw_PUB.mT[0], raw_PUB.mT[0, :0]):
        torch.testing.assert_close(log_softmax(raw), raw.double().log_softmax(-1).float())


def test_expected_entropy_never_exceeds_total_entropy():
    generator = torch.Generator().manual_seed(0)
    raw = 10 ** torch.linspace(-3, 3, 2000)[:, None] * torch.randn((2000, 7), generator=generator)
    predicted = predictions(raw, BOTH, 6)
    total = entropy(log_softmax(raw[:, :6]))
    information = total - predicted["expected_entropy"].squeeze(-1)
    assert (information >= 0).all()
    assert (predicted["expected_entropy"] >= 0).all()
    assert (information[:100] > 0).all()  # a head of a = 0 claims half of H, not all


def test_the_entropy_loss_leaves_the_predictive_head_alone():
    raw = torch.randn((8, 4), generator=torch.Generator().manual_seed(0)).requires_grad_()
    heads = {name: raw[:, cut] for name, cut in head_slices(BOTH, 3).items()}
    TARGETS["expected_entropy"].loss(
        heads["expected_entropy"], heads, torch.full((8, 1), 0.2)
    ).sum().backward()
    assert raw.grad[:, :3].abs().max() == 0
    assert raw.grad[:, 3].abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_class_of_probability_zero_adds_nothing_to_the_entropy(dtype):
    prob = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], dtype=dtype)
    log_prob = prob.log().requires_grad_()
    found = entropy(log_prob)
    assert found.tolist() == pytest.approx([0.6931472, 0.0])
    found.sum().backward()
    assert log_prob.grad.isfinite().all()


def test_the_loss_is_the_weighted_sum_of_its_targets():
    raw = torch.randn((6, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expectations = {
        "predictive": torch.rand((6, 3), generator=torch.Generator().manual_seed(1))
        .double()
        .softmax(-1),
        "expected_entropy": torch.full((6, 1), 0.3, dtype=torch.float64),
    }
    log_q = raw[:, :3].log_softmax(-1)
    cross_entropy = -(expectations["predictive"] * log_q).sum(-1).mean()
    total = -(log_q.exp() * log_q).sum(-1)
    square = (torch.sigmoid(raw[:, 3]) * total - 0.3).square().mean()
    found = loss(raw, BOTH, {"expected_entropy": 5.0}, expectations, 3)
    assert found.item() == pytest.approx((cross_entropy + 5 * square).item())


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ((), ConfigError, r"f: targets: found \[\], expected at least one target and none twice"),
        (("predictive", "predictive"), ConfigError, "f: targets: found .* none twice"),
        (("expected_entropy",), ConfigError, "list 'predictive' before it"),
        (("expected_entropy", "predictive"), ConfigError, "list 'predictive' before it"),
        (("predictve",), RegistryError, "unknown target 'predictve'; did you mean 'predictive'"),
    ],
)
def test_wrong_lists_of_targets_are_refused(names, error, message):
    with pytest.raises(error, match=message):
        check_targets(names, "f: targets")


def test_right_lists_of_targets_pass():
    check_targets(("predictive",), "")
    check_targets(BOTH, "")
