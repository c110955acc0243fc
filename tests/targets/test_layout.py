"""Heads side by side: which raw outputs are whose, what they predict, what they cost."""

import pytest
import torch

from gped_nas.targets.base import TARGETS
from gped_nas.targets.formulas import entropy, log_softmax
from gped_nas.targets.layout import HeadLayout

BOTH = ("predictive", "expected_entropy")


def test_heads_lie_side_by_side_in_the_order_of_the_targets():
    """Of 3 classes: 3 outputs, one, 3 * (3 + 1); what is derived or reads other heads has none."""
    names = ("predictive", "expected_entropy", "mutual_information", "utility", "quantile")
    layout = HeadLayout(names, 3)
    assert layout.slices == {
        "predictive": slice(0, 3),
        "expected_entropy": slice(3, 4),
        "utility": slice(4, 4),
        "quantile": slice(4, 16),
    }
    assert layout.num_outputs == 16
    assert tuple(target.name for target in layout.targets) == names

    raw = torch.arange(32.0).view(2, 16)
    heads = layout.split(raw)
    assert heads["expected_entropy"].tolist() == [[3.0], [19.0]]
    assert torch.equal(torch.cat(list(heads.values()), -1), raw)
    assert list(layout.predict(raw)) == list(names)


def test_nothing_is_looked_up_by_name_once_the_heads_are_laid_out(monkeypatch):
    layout = HeadLayout((*BOTH, "mutual_information"), 3)
    raw = torch.randn((6, 4), generator=torch.Generator().manual_seed(0))
    expectations = {name: value + 0.1 for name, value in layout.predict(raw).items()}
    loss = layout.loss(raw, expectations, {})

    monkeypatch.setattr(TARGETS, "_items", {})
    assert torch.equal(layout.loss(raw, expectations, {}), loss)
    assert set(layout.predict(raw)) == {*BOTH, "mutual_information"}


def test_the_loss_is_the_weighted_sum_of_its_targets():
    raw = torch.randn((6, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prob = torch.rand((6, 3), generator=torch.Generator().manual_seed(1)).double().softmax(-1)
    expectations = {
        "predictive": prob,
        "expected_entropy": torch.full((6, 1), 0.3, dtype=torch.float64),
    }

    log_q = raw[:, :3].log_softmax(-1)
    cross_entropy = -(prob * log_q).sum(-1).mean()
    total = -(log_q.exp() * log_q).sum(-1)
    square = (torch.sigmoid(raw[:, 3]) * total - 0.3).square().mean()

    loss = HeadLayout(BOTH, 3).loss(raw, expectations, {"expected_entropy": 5.0})
    assert loss.item() == pytest.approx((cross_entropy + 5 * square).item())


def test_concentrations_of_a_student_are_as_exact_as_its_raw_outputs():
    """Raw outputs up to 22: float32 rounds their differences by 1e-6.

    It rounds differences of probabilities by all there is.
    """
    layout = HeadLayout(("predictive", "second_moment", "dirichlet"), 3)
    raw = 5 * torch.randn((4000, 6), generator=torch.Generator().manual_seed(0))
    single = layout.predict(raw)
    double = layout.predict(raw.double())
    exact = double["dirichlet"]

    def largest_error(concentrations):
        return ((concentrations - exact).abs() / exact).max()

    assert largest_error(single["dirichlet"]) < 4e-6

    # why it is not computed from the student's averages
    assert largest_error(TARGETS["dirichlet"].derive(single)) > 1
    assert torch.allclose(TARGETS["dirichlet"].derive(double), exact, rtol=1e-6)


def test_expected_entropy_never_exceeds_total_entropy():
    generator = torch.Generator().manual_seed(0)
    raw = 10 ** torch.linspace(-3, 3, 2000)[:, None] * torch.randn((2000, 7), generator=generator)
    predicted = HeadLayout(BOTH, 6).predict(raw)
    total = entropy(log_softmax(raw[:, :6]))
    information = total - predicted["expected_entropy"].squeeze(-1)
    assert (information >= 0).all()
    assert (predicted["expected_entropy"] >= 0).all()
    assert (information[:100] > 0).all()  # a head of a = 0 claims half of H, not all


def test_the_entropy_loss_leaves_the_predictive_head_alone():
    raw = torch.randn((8, 4), generator=torch.Generator().manual_seed(0)).requires_grad_()
    heads = HeadLayout(BOTH, 3).split(raw)
    expectation = torch.full((8, 1), 0.2)
    losses = TARGETS["expected_entropy"].loss(heads["expected_entropy"], heads, expectation)
    losses.sum().backward()
    assert raw.grad[:, :3].abs().max() == 0
    assert raw.grad[:, 3].abs().min() > 0
