"""The kernel's oracle: the same training, one student at a time, in the plainest way torch offers.

Its own loop, torch's own optimizers, the proximal step by bisection where asked for, Muon's
matrices one by one in float64; norms are in ``reference_norms.py``. Slow on purpose; tests hold
``kernel.distill`` against it. Rungs change no parameter and are not here.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.distill.centering import Centers, enter, leave, unit_means
from gped_nas.distill.components import fit
from gped_nas.distill.course import lr_factor, settling_batches, student_seed
from gped_nas.distill.feed import Batch, CachedFeed, DistillationSet
from gped_nas.distill.pruning import rows_of, write_rows
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, Genotype, Params, shapes_of
from gped_nas.models.compact import compact
from gped_nas.models.dense import Chain, dense_chain
from gped_nas.targets.base import Expectations
from gped_nas.targets.label import LabelQuantileSettings
from gped_nas.targets.layout import LABELS, HeadLayout
from tests.distill import reference_norms
from tests.distill.reference_budget import Budgeted, prices_of, set_to_zero

Prox = Callable[[Tensor, Tensor, float, float], Tensor]


def prox_reference(weight: Tensor, scale: Tensor, step: float, penalty: float) -> Tensor:
    """The group lasso's proximal step by bisection on ``r``, slow and obvious.

    It is the oracle of ``pruning.prox_group_lasso``; see there for the equations.
    """
    c = (step * penalty * weight.shape[1] ** 0.5) * scale
    out = torch.zeros_like(weight)
    for row, (w, cw) in enumerate(zip(weight, c, strict=True)):
        if float((w / cw).square().sum()) <= 1:
            continue

        low, high = 0.0, float(w.norm())
        for _ in range(200):
            middle = (low + high) / 2
            if float((w / (middle + cw)).square().sum()) > 1:
                low = middle
            else:
                high = middle
        out[row] = w * (low / (low + cw))
    return out


def distill_one(
    genotype: Genotype,
    data: DistillationSet,
    recipe: Recipe,
    *,
    seed: int,
    prox: Prox = prox_reference,
    ridge: float = 0.0,
) -> Params:
    """Parameters of one student after the whole recipe, pruned, on the CPU.

    Args:
        genotype, data, recipe, seed: as for ``kernel.distill``.
        prox: the group lasso's proximal step.
        ridge: see ``Trainee``.
    """
    generator = torch.Generator().manual_seed(student_seed(seed, genotype))
    family = FAMILIES[genotype.family]
    params = family.initialize(data.shapes(genotype), generator=generator)
    plain_shape = tuple(data.inputs.shape[1:])
    if not recipe.components:
        feed = CachedFeed(data, recipe, seed)
        return _train_and_prune(genotype, params, data, recipe, feed, prox, ridge, plain_shape)

    frame = fit(data.inputs, recipe.components)
    in_frame = replace(data, inputs=frame.project(data.inputs))
    layer = dense_chain(family, shapes_of(params))[0]
    params = frame.enter(params, layer)
    feed: Iterator[Batch] = CachedFeed(in_frame, recipe, seed)
    if data.fresh is not None:
        feed = ((frame.project(x), shown) for x, shown in CachedFeed(data, recipe, seed))
    trained = _train_and_prune(genotype, params, in_frame, recipe, feed, prox, ridge, plain_shape)
    return frame.leave(trained, layer)


def _train_and_prune(
    genotype: Genotype,
    params: Params,
    data: DistillationSet,
    recipe: Recipe,
    feed: Iterator[Batch],
    prox: Prox,
    ridge: float,
    plain_shape: tuple[int, ...],
) -> Params:
    prune_step = recipe.prune_step_of(genotype)
    penalized = range(prune_step)
    params = _train(genotype, params, data, recipe, feed, penalized, prox, ridge, plain_shape)

    params = compact(genotype.family, params)
    fine_tuning = range(prune_step, recipe.steps)
    return _train(genotype, params, data, recipe, feed, fine_tuning, None, ridge, plain_shape)


def _train(
    genotype: Genotype,
    params: Params,
    data: DistillationSet,
    recipe: Recipe,
    feed: Iterator[Batch],
    steps: range,
    prox: Prox | None,
    ridge: float,
    plain_shape: tuple[int, ...],
) -> Params:
    """One phase: the first with a proximal step, the second without one and with averages."""
    norm = reference_norms.of(genotype)
    batches = settling_batches(data, recipe)
    params = norm.begin(params) if prox else norm.enter(params, batches)
    factor = lr_factor(data.shapes(genotype), recipe)
    chain = dense_chain(FAMILIES[genotype.family], shapes_of(params))
    centers = unit_means(params, chain, data.inputs, torch.float32) if recipe.centered else ()
    params = enter(params, chain, centers) if centers else params

    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimizer = _OPTIMIZERS[recipe.optimizer](leaves, recipe)
    average = {name: p.clone().double() for name, p in params.items()}
    lr_sum = 0.0

    for count, step in enumerate(steps, 1):
        x, expectations = next(feed)
        lr = recipe.lr_at(step) * factor
        for leaf in leaves.values():
            leaf.grad = None
        raw = _centered(leaves, x, chain, centers) if centers else norm.forward(leaves, x)
        value = _loss(genotype, raw, expectations, data.layout, recipe)
        if recipe.certify:
            value = value + _worst_loss(leaves, x, expectations, data, recipe)
        for leaf in leaves.values():
            value = value + 0.5 * ridge * leaf.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step(lr)
        lr_sum += lr

        if prox is None:
            weight = max(1 - recipe.average, 1 / (count + 1))
            for name, leaf in leaves.items():
                average[name] = average[name] + weight * (leaf.detach().double() - average[name])
        elif (step + 1) % recipe.prox_every == 0 or step == steps[-1]:
            if genotype.budget is None:
                _shrink(genotype, leaves, optimizer, prox, lr_sum, norm)
            else:
                ends = [s for s in steps if (s + 1) % recipe.prox_every == 0 or s == steps[-1]]
                num_left = len([s for s in ends if s >= step])
                budgeted = Budgeted(genotype, plain_shape, data.layout.num_outputs)
                _shrink_to_budget(budgeted, leaves, optimizer, prox, num_left, norm)
            lr_sum = 0.0

    if prox is None and recipe.average:
        params = {name: a.float() for name, a in average.items()}
    else:
        params = {name: p.detach() for name, p in leaves.items()}
    params = norm.leave(params, batches)
    return leave(params, chain, centers) if centers else params


def _worst_loss(
    params: Params, x: Tensor, expectations: Expectations, data: DistillationSet, recipe: Recipe
) -> Tensor:
    """The bound of certified training of an mlp: each end of each unit, pair by pair of classes."""
    assert data.reach is not None
    main = data.layout.slices["predictive"]
    *hidden, last = zip(*[iter(params.values())] * 2, strict=True)
    total = x.new_zeros(())
    for center, target in zip(x.flatten(1), expectations["predictive"], strict=True):
        low = center - recipe.certify * data.reach.flatten()
        high = center + recipe.certify * data.reach.flatten()
        for weight, bias in hidden:
            ends = torch.stack([weight * low, weight * high])
            low, high = ends.amin(0).sum(1) + bias, ends.amax(0).sum(1) + bias
            low, high = low.relu(), high.relu()

        weight, bias = last[0][main], last[1][main]
        for y in range(len(weight)):
            differences = []
            for k in range(len(weight)):
                row = weight[k] - weight[y]
                largest = torch.maximum(row * low, row * high).sum()
                differences.append(largest + bias[k] - bias[y])
            total = total + target[y] * torch.stack(differences).logsumexp(0)
    return total / len(x)


def _loss(
    genotype: Genotype, raw: Tensor, expectations: Expectations, layout: HeadLayout, recipe: Recipe
) -> Tensor:
    """The loss of a batch, input by input: of the teacher, and where it is known of the label."""
    labels = expectations.get(LABELS)
    has_own = any(target.name in _BY_INPUT for target in layout.learned)
    if labels is None and not has_own:
        return layout.loss(raw, expectations, recipe.target_weights)

    share = dict(genotype.values).get("label_weight", recipe.label_weight)
    heads = layout.split(raw)
    total = raw.new_zeros(())
    for target in layout.learned:
        losses = list(target.loss(heads[target.name], heads, expectations[target.name]))
        if target.name in _BY_INPUT:
            values = heads[target.name], heads[layout.main.name], expectations[target.name]
            rows = zip(*values, strict=True)
            losses = [_BY_INPUT[target.name](*row) for row in rows]
        if labels is not None and target.name in ("predictive", "predictive_normal"):
            for i, label in enumerate(labels):
                if not label.isnan().any():
                    of_label = _loss_of_label(target.name, heads[target.name][i], label)
                    losses[i] = (1 - share) * losses[i] + share * of_label
        weight = recipe.target_weights.get(target.name, 1.0)
        total = total + weight * torch.stack(losses).mean()
    return total


def _model_variance(raw: Tensor, normal: Tensor, moments: Tensor) -> Tensor:
    """Minus the log-density of a sample's mean around the student's, averaged over samples.

    And of noise of the samples' variance around zero.
    """
    center, log_variance = normal.detach()
    variance = raw[0].sigmoid() * log_variance.exp()
    spread = moments[1] - moments[0].square()
    of_average = F.gaussian_nll_loss(center, moments[0], variance, eps=0)

    noise = (1 - raw[0].sigmoid()) * log_variance.exp()
    of_noise = F.gaussian_nll_loss(torch.zeros(()), moments[2].sqrt(), noise, eps=0)
    return of_average + 0.5 * spread / variance + of_noise


def _exceedance(raw: Tensor, normal: Tensor, exceeding: Tensor) -> Tensor:
    """Cross-entropy of the stretches between thresholds, from the lowest to the highest."""
    ends = [1.0, *exceeding, 0.0]
    total = raw.new_zeros(())
    for stretch, log_prob in enumerate(raw.log_softmax(0)):
        total = total - (ends[stretch] - ends[stretch + 1]) * log_prob
    return total


def _label_quantile(raw: Tensor, normal: Tensor, sample: Tensor) -> Tensor:
    """The pinball loss of every label that a sample holds possible, on a fine grid."""
    center, log_variance = normal.detach()
    grid = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    mass = (-0.5 * grid.square()).exp()
    label = sample[0] + sample[1].sqrt() * grid

    total, place = raw.new_zeros(()), raw[0]
    levels = LabelQuantileSettings().levels
    standard = [torch.special.ndtri(torch.tensor(level)) for level in levels]
    for i, level in enumerate(levels):
        if i == 0:
            place = place + standard[0]
        else:
            place = place + (standard[i] - standard[i - 1]) * F.softplus(raw[i]) / math.log(2)
        above = label - (center + (0.5 * log_variance).exp() * place)
        pinball = torch.maximum(level * above, (level - 1) * above)
        total = total + (mass * pinball).sum() / mass.sum()
    return total.float()


def _logits(raw: Tensor) -> Tensor:
    """Logarithms of probabilities of 1e-6 or more, less their mean."""
    finite = raw.detach().log_softmax(0).clamp_min(math.log(1e-6))
    return finite - finite.mean()


def _logit_variance(raw: Tensor, predictive: Tensor, moments: Tensor) -> Tensor:
    """Minus the log-density of a sample's logits, averaged over samples and classes."""
    num_classes = len(predictive)
    mean, second = moments[:num_classes], moments[num_classes:]
    center = _logits(predictive) + raw[:num_classes]
    variance = raw[num_classes:].exp() + 1e-4
    of_mean = F.gaussian_nll_loss(center, mean, variance, eps=0)
    return 0.1 * (of_mean + (0.5 * (second - mean.square()) / variance).mean())


def _interval(raw: Tensor, predictive: Tensor, ends: Tensor) -> Tensor:
    """Binary cross-entropy of both ends, which are log-odds away from the predictive's."""
    prob = predictive.detach().double().softmax(0)
    odds = (prob / (prob.sum() - prob)).log()
    below, above = F.softplus(raw).view(-1, 2).unbind(1)
    said = torch.stack([odds - below, odds + above], 1).sigmoid().flatten()
    return F.binary_cross_entropy(said, ends.double(), reduction="sum").float()


def _factors(raw: Tensor, predictive: Tensor, said: Tensor) -> Tensor:
    """Minus the log-density of logits given their scores: a term a class, factor by factor."""
    num_classes = len(predictive)
    raw_rows, rows = raw.view(-1, num_classes), said.view(-1, num_classes)
    center = _logits(predictive) + raw_rows[0]

    total = raw.new_zeros(())
    for c in range(num_classes):
        variance = raw_rows[-1, c].exp() + 1e-4
        squared = (rows[0, c] - center[c]).square() + rows[-1, c]
        for j in range(1, len(rows) - 1):
            squared = squared + (rows[j, c] - raw_rows[j, c]).square()
        total = total + 0.5 * (variance.log() + squared / variance)
    return 0.1 * total / num_classes


_BY_INPUT = {
    "model_variance": _model_variance,
    "exceedance": _exceedance,
    "label_quantile": _label_quantile,
    "logit_variance": _logit_variance,
    "interval": _interval,
    "factors": _factors,
}
"""Losses of one input by target: its raw outputs, those of the main target, and what is said."""


def _loss_of_label(name: str, raw: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of the class, or minus the log-density of the real label but a constant."""
    if name == "predictive":
        return F.cross_entropy(raw, label.argmax())
    mean, log_variance = raw
    return F.gaussian_nll_loss(mean, label[0], log_variance.exp(), eps=0)


def _shrink(
    genotype: Genotype,
    leaves: Params,
    optimizer: "_Optimizer",
    prox: Prox,
    lr_sum: float,
    norm: reference_norms.Norm,
) -> None:
    """The proximal step of every group of a student with a penalty."""
    penalty = genotype["group_penalty"]
    if penalty == 0:
        return

    shapes = shapes_of(leaves)
    for group in genotype.prunable(shapes):
        names, factor = norm.penalized(group.weights, shapes)
        weights = [leaves[name].data for name in names]
        scale = rows_of([optimizer.metric(name) for name in names])
        write_rows(weights, prox(rows_of(weights), scale, lr_sum, penalty * factor))


def _shrink_to_budget(
    budgeted: Budgeted,
    leaves: Params,
    optimizer: "_Optimizer",
    prox: Prox,
    num_left: int,
    norm: reference_norms.Norm,
) -> None:
    """The proximal step on the way to a budget, or after the last one what lies beyond it."""
    by_length = dict(budgeted.genotype.values).get("prune_criterion") == "magnitude"
    shapes = shapes_of(leaves)
    penalized = [norm.penalized(group.weights, shapes) for group in budgeted.groups]
    prices = []
    for names, factor in penalized:
        rows = rows_of([leaves[name].data for name in names])
        scale = rows_of([optimizer.metric(name) for name in names])
        prices.append(prices_of(rows, scale, factor, by_length=by_length))

    if num_left == 1:
        set_to_zero(budgeted.landed(prices), [names for names, _ in penalized], leaves)
        return

    threshold = 0.0 if by_length else budgeted.threshold(prices, num_left)
    if threshold == 0:
        return
    for names, factor in penalized:
        weights = [leaves[name].data for name in names]
        scale = rows_of([optimizer.metric(name) for name in names])
        write_rows(weights, prox(rows_of(weights), scale, threshold, factor))


def _centered(params: Params, x: Tensor, chain: Chain, centers: Centers) -> Tensor:
    hidden = x.flatten(1)
    *layers, (last_weight, last_bias) = chain
    for (weight, bias), center in zip(layers, centers, strict=True):
        raw = F.linear(hidden, params[weight], params[bias])
        hidden = _activated(weight, raw) - center
    return F.linear(hidden, params[last_weight], params[last_bias])


def _activated(name: str, raw: Tensor) -> Tensor:
    """The activation that a parameter's name tells, by its formula."""
    if ".tanh." in name:
        return (raw.exp() - (-raw).exp()) / (raw.exp() + (-raw).exp())
    if ".silu." in name:
        return raw * raw.sigmoid()
    if ".gelu." in name:
        return raw * (1 + (raw / 2**0.5).erf()) / 2
    return raw.relu()


class _AdamW:
    def __init__(self, leaves: Params, recipe: Recipe) -> None:
        self.leaves, self.recipe = leaves, recipe
        self.torch = torch.optim.AdamW(
            leaves.values(),
            betas=(recipe.beta1, recipe.beta2),
            eps=1e-8,
            weight_decay=recipe.weight_decay,
        )

    def step(self, lr: float) -> None:
        self.torch.param_groups[0]["lr"] = lr
        self.torch.step()

    def metric(self, name: str) -> Tensor:
        state = self.torch.state[self.leaves[name]]
        second: Tensor = state["exp_avg_sq"] / (1 - self.recipe.beta2 ** int(state["step"]))
        return 1 / (second.sqrt() + 1e-8)


class _Sgd:
    def __init__(self, leaves: Params, recipe: Recipe) -> None:
        self.leaves, self.recipe = leaves, recipe
        self.torch = torch.optim.SGD(
            leaves.values(),
            lr=1.0,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )

    def step(self, lr: float) -> None:
        self.torch.param_groups[0]["lr"] = lr
        self.torch.step()

    def metric(self, name: str) -> Tensor:
        return torch.full_like(self.leaves[name].data, 1 / (1 - self.recipe.momentum))


class _Muon:
    def __init__(self, leaves: Params, recipe: Recipe) -> None:
        weights = [name for name, p in leaves.items() if p.dim() > 1]
        self.matrices = {name: leaves[name] for name in weights[:-1]}
        rest = {name: p for name, p in leaves.items() if name not in self.matrices}
        self.rest = _AdamW(rest, recipe)
        self.recipe = recipe

        self.momenta: dict[str, Tensor] = {}
        self.steps: dict[str, Tensor] = {}
        for name, p in self.matrices.items():
            self.momenta[name] = torch.zeros_like(p, dtype=torch.float64).flatten(1)
            self.steps[name] = torch.zeros_like(self.momenta[name])

    def step(self, lr: float) -> None:
        beta = self.recipe.momentum
        for name, p in self.matrices.items():
            assert p.grad is not None
            gradient = p.grad.double().flatten(1)
            self.momenta[name] = beta * self.momenta[name] + (1 - beta) * gradient

            x = (1 - beta) * gradient + beta * self.momenta[name]
            x = x / x.norm().clamp_min(1e-8)
            for _ in range(5):
                x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
            self.steps[name] = x * max(1.0, x.shape[0] / x.shape[1]) ** 0.5

            step = self.steps[name].view_as(p).float()
            p.data.mul_(1 - lr * self.recipe.weight_decay).sub_(lr * step)

        self.rest.step(lr * self.recipe.lr_rest / self.recipe.lr)

    def metric(self, name: str) -> Tensor:
        if name not in self.matrices:
            return self.rest.metric(name) * (self.recipe.lr_rest / self.recipe.lr)

        step_norms = self.steps[name].norm(dim=1)
        gradient_norms = self.momenta[name].norm(dim=1).clamp_min(1e-8)
        rows: Tensor = (step_norms / gradient_norms).clamp_min(1e-8)
        p = self.matrices[name].data
        return rows.float().view(-1, *[1] * (p.dim() - 1)).expand_as(p)


_Optimizer = _AdamW | _Sgd | _Muon
_OPTIMIZERS: dict[str, type[_AdamW] | type[_Sgd] | type[_Muon]] = {
    "adamw": _AdamW,
    "sgd": _Sgd,
    "muon": _Muon,
}
