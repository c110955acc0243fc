"""Entropies and log-probabilities at the edges of floating point."""

import pytest
import torch

from gped_nas.targets.formulas import entropy, log_softmax


def test_log_probabilities_of_a_batch_in_either_layout():
    raw_PUB = 30 * torch.randn((3, 5, 4), generator=torch.Generator().manual_seed(0))
    for raw in (raw_PUB.mT, raw_PUB.mT.contiguous(), raw_PUB.mT[0], raw_PUB.mT[0, :0]):
        torch.testing.assert_close(log_softmax(raw), raw.double().log_softmax(-1).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_class_of_probability_zero_adds_nothing_to_the_entropy(dtype):
    prob = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], dtype=dtype)
    log_prob = prob.log().requires_grad_()
    value = entropy(log_prob)
    assert value.tolist() == pytest.approx([0.6931472, 0.0])
    value.sum().backward()
    assert log_prob.grad.isfinite().all()
