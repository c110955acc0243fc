"""Filter response normalization and its derivatives against the formula left to autograd."""

import pytest
import torch

from gped_nas.models.images import channels_last
from gped_nas.models.norms import filter_response_norm


def reference(x, gain, bias):
    inverse_root = (x.square().mean((2, 3), keepdim=True) + 1e-6).rsqrt()
    return gain[:, None, None] * x * inverse_root + bias[:, None, None]


def draw(shape, dtype=torch.float64):
    """Inputs, gain and bias, all of which ask for gradients."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    gain, bias = torch.randn((2, shape[1]), generator=generator, dtype=dtype)
    return channels_last(x).requires_grad_(), gain.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (1, 1, 1, 1), (2, 6, 1, 3)])
def test_value_and_gradients_are_those_of_the_formula(shape):
    leaves = draw(shape)
    y = filter_response_norm(*leaves)
    expected_y = reference(*leaves)
    torch.testing.assert_close(y, expected_y, rtol=1e-12, atol=1e-12)

    direction = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slopes = torch.autograd.grad(y, leaves, direction)
    expected_slopes = torch.autograd.grad(expected_y, leaves, direction)
    torch.testing.assert_close(slopes, expected_slopes, rtol=1e-11, atol=1e-12)


def test_a_channel_of_zeros_has_finite_gradients():
    x, gain, bias = draw((2, 3, 4, 4), torch.float32)
    with torch.no_grad():
        x[:, 1] = 0
    slopes = torch.autograd.grad(filter_response_norm(x, gain, bias).sum(), (x, gain, bias))
    assert all(slope.isfinite().all() for slope in slopes)
    assert slopes[1][1] == 0


def test_second_derivatives_are_right():
    def second_derivatives(norm):
        leaves = draw((2, 3, 2, 3))
        slopes = torch.autograd.grad(norm(*leaves).pow(3).sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(slope.pow(2).sum() for slope in slopes), leaves)

    curvatures = second_derivatives(filter_response_norm)
    torch.testing.assert_close(curvatures, second_derivatives(reference), rtol=1e-10, atol=1e-11)


def test_vmap_gives_each_network_its_own_gradient():
    x, gain, bias = (leaf.detach() for leaf in draw((2, 3, 4, 4)))
    gains = torch.stack([gain, 2 * gain])

    def slopes(norm):
        slope = torch.func.grad(lambda gain: norm(x, gain, bias).pow(3).sum())
        return torch.func.vmap(slope)(gains)

    expected = slopes(reference)
    torch.testing.assert_close(slopes(filter_response_norm), expected, rtol=1e-11, atol=1e-12)
