"""Filter response normalization against the formula left to autograd, in first and second
derivatives.
"""

import pytest
import torch

from gped_nas.models.images import channels_last
from gped_nas.models.norms import filter_response_norm


def reference(x, gain, bias):
    return (
        gain[:, None, None] * x * (x.square().mean((2, 3), keepdim=True) + 1e-6).rsqrt()
        + bias[:, None, None]
    )


def drawn(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    gain, bias = torch.randn((2, shape[1]), generator=generator, dtype=dtype)
    return channels_last(x).requires_grad_(), gain.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (1, 1, 1, 1), (2, 6, 1, 3)])
def test_value_and_gradients_are_those_of_the_formula(shape):
    leaves = drawn(shape)
    direction = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, expected = filter_response_norm(*leaves), reference(*leaves)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pairs = zip(
        torch.autograd.grad(found, leaves, direction),
        torch.autograd.grad(expected, leaves, direction),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_a_channel_of_zeros_has_finite_gradients():
    x, gain, bias = drawn((2, 3, 4, 4), torch.float32)
    with torch.no_grad():
        x[:, 1] = 0
    found = torch.autograd.grad(filter_response_norm(x, gain, bias).sum(), (x, gain, bias))
    assert all(grad.isfinite().all() for grad in found)
    assert found[1][1] == 0


def test_second_derivatives_are_right():
    def second(norm):
        leaves = drawn((2, 3, 2, 3))
        slopes = torch.autograd.grad(norm(*leaves).pow(3).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(slope.pow(2).sum() for slope in slopes), leaves)

    for one, other in zip(second(filter_response_norm), second(reference), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_vmap_gives_each_network_its_own_gradient():
    x, gain, bias = (leaf.detach() for leaf in drawn((2, 3, 4, 4)))
    gains = torch.stack([gain, 2 * gain])

    def slopes(norm):
        slope = torch.func.grad(lambda own: norm(x, own, bias).pow(3).sum())
        return torch.func.vmap(slope)(gains)

    torch.testing.assert_close(
        slopes(filter_response_norm), slopes(reference), rtol=1e-11, atol=1e-12
    )
