"""The prior precision that the marginal likelihood of a trained network asks for.

Laplace's approximation around parameters theta with a diagonal generalized Gauss-Newton matrix h
says of the precision lambda of a Gaussian prior

    log p(D | lambda) ~ log p(D | theta) - (lambda / 2) |theta|^2
                        - (1 / 2) sum_i log((h_i + lambda) / lambda)

whose maximum at fixed theta is MacKay's fixed point

    lambda = gamma / |theta|^2,   gamma = sum_i h_i / (h_i + lambda).

One network and one pass over some examples: a cheap proposal of where to look, and no more. theta
itself is that of another precision, and a diagonal sees no correlations.

Source: MacKay 1992, Neural Computation 4(3), equation 4.7; with this matrix for networks: Immer et
al. 2021, arXiv:2104.04975. The diagonal is estimated by one draw of signs an example, unbiased.
"""

import torch
from torch import Generator, Tensor
from torch.func import grad, vmap

from gped_nas.posterior.problem import Network, Problem, flatten, unflatten

_MAX_EXAMPLES = 1000
_BATCH_NUMBERS = 2**25
"""Numbers of the gradients of a batch, an example each."""
_STEPS = 200
_LEAST, _MOST = 1e-8, 1e8


def evidence_precision(problem: Problem, theta_W: Tensor, *, generator: Generator) -> float:
    """The precision of a Gaussian prior at which the evidence of a trained network is largest.

    Args:
        problem: the posterior that it was trained for; its own prior is not looked at.
        theta_W: its flat parameters.
        generator: draws examples and signs.
    """
    curvature_W = gauss_newton_diagonal(problem, theta_W, generator=generator).double().cpu()
    square = float(theta_W.double().square().sum())
    precision = 1.0
    for _ in range(_STEPS):
        num_determined = float((curvature_W / (curvature_W + precision)).sum())
        proposed = min(max(num_determined / square, _LEAST), _MOST)
        if abs(proposed / precision - 1) < 1e-6:
            break
        precision = proposed
    return precision


def gauss_newton_diagonal(problem: Problem, theta_W: Tensor, *, generator: Generator) -> Tensor:
    """Diagonal (W,) of sum_n J_n^T Lambda_n J_n, estimated from some of the examples.

    J is the derivative of a network's outputs, Lambda minus the Hessian of the log-likelihood in
    them. With Lambda = R R^T and signs s, (J^T R s)^2 has the diagonal for its mean.

    Args:
        problem: the posterior; its network can be looked into.
        theta_W: flat parameters.
        generator: draws examples and signs.
    """
    network = problem.network
    assert network is not None, "teachers are networks"
    device = problem.x.device
    num = min(problem.num_examples, _MAX_EXAMPLES)
    index = torch.randperm(problem.num_examples, generator=generator)[:num].to(device)
    params = unflatten(theta_W.to(device), problem.shapes)

    def projected(p: dict[str, Tensor], x: Tensor, direction_C: Tensor) -> Tensor:
        return network.forward(p, x[None])[0] @ direction_C

    gradients = vmap(grad(projected), in_dims=(None, 0, 0))
    total_W = torch.zeros_like(theta_W, device=device)
    for part in torch.split(index, max(1, _BATCH_NUMBERS // len(theta_W))):
        x_B, y_B = problem.x[part], problem.y[part]
        root_BCC = _curvature_root(network, network.forward(params, x_B).detach(), y_B)
        signs = torch.randint(2, root_BCC.shape[:2], generator=generator) * 2.0 - 1.0
        direction_BC = torch.einsum("bcd,bd->bc", root_BCC, signs.to(root_BCC))
        by_name = gradients(params, x_B, direction_BC)
        squares = {name: g.square().sum(0) for name, g in by_name.items()}
        total_W += flatten({name: squares[name] for name in problem.shapes})
    return total_W * problem.num_examples / num


def _curvature_root(network: Network, outputs_BC: Tensor, y_B: Tensor) -> Tensor:
    """R (B, C, C): R R^T is minus the Hessian of each log-likelihood, less what is negative."""
    leaf = outputs_BC.clone().requires_grad_()
    slope = torch.autograd.grad(network.log_likelihood(leaf, y_B).sum(), leaf, create_graph=True)[0]
    rows = []
    for c in range(leaf.shape[1]):
        rows.append(torch.autograd.grad(slope[:, c].sum(), leaf, retain_graph=True)[0])
    values, vectors = torch.linalg.eigh(-torch.stack(rows, 1))
    root: Tensor = vectors * values.clamp(min=0).sqrt()[:, None, :]
    return root
