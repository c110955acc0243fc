"""The device programs that change parameters: optimizers' updates, and the proximal step.

Triton compiles this file; see ``programs.py``. Of all students' numbers each program takes some,
and writes a number once: the master, what the optimizer remembers, and the rounded copy that the
next step computes with.
"""

import triton
import triton.language as tl

NUM_FIELDS = tl.constexpr(4)


@triton.jit
def adamw(
    THETA,
    FIRST,
    SECOND,
    WORK_GRAD,
    WORK,
    LR,
    FACTORS,
    UPDATES,
    size,
    beta1,
    beta2,
    log2_beta1,
    log2_beta2,
    decay,
    eps,
    HAS_WORK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One update of AdamW (Loshchilov & Hutter 2019)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_there = at < size
    lr = tl.load(LR) * tl.load(FACTORS + at // 16, mask=is_there, other=0.0)
    correction1 = _unbiased(UPDATES, log2_beta1)
    correction2 = _unbiased(UPDATES, log2_beta2)

    grad = tl.load(WORK_GRAD + at, mask=is_there, other=0.0).to(tl.float32)
    first = tl.load(FIRST + at, mask=is_there, other=0.0)
    second = tl.load(SECOND + at, mask=is_there, other=0.0)
    theta = tl.load(THETA + at, mask=is_there, other=0.0)

    first += (1.0 - beta1) * (grad - first)
    second = beta2 * second + (1.0 - beta2) * grad * grad
    theta = theta * (1.0 - lr * decay)
    theta -= lr * (first / correction1) / (tl.sqrt(second / correction2) + eps)

    tl.store(FIRST + at, first, mask=is_there)
    tl.store(SECOND + at, second, mask=is_there)
    tl.store(THETA + at, theta, mask=is_there)
    if HAS_WORK:
        tl.store(WORK + at, theta.to(WORK.dtype.element_ty), mask=is_there)


@triton.jit
def _unbiased(UPDATES, log2_beta):
    """What a running mean that began at zero is divided by, after so many updates."""
    # in float64: of 1 - 0.99 float32 keeps but five digits
    updates = tl.load(UPDATES).to(tl.float64)
    return (1.0 - tl.exp2(updates * log2_beta)).to(tl.float32)


@triton.jit
def sgd(
    THETA,
    MOMENTUM,
    WORK_GRAD,
    WORK,
    LR,
    FACTORS,
    size,
    momentum,
    decay,
    HAS_MOMENTUM: tl.constexpr,
    HAS_WORK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One update by Nesterov's momentum, as ``torch.optim.SGD`` has it."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_there = at < size
    lr = tl.load(LR) * tl.load(FACTORS + at // 16, mask=is_there, other=0.0)
    theta = tl.load(THETA + at, mask=is_there, other=0.0)
    step = tl.load(WORK_GRAD + at, mask=is_there, other=0.0).to(tl.float32) + decay * theta

    if HAS_MOMENTUM:
        mean = momentum * tl.load(MOMENTUM + at, mask=is_there, other=0.0) + step
        step += momentum * mean
        tl.store(MOMENTUM + at, mean, mask=is_there)
    theta -= lr * step

    tl.store(THETA + at, theta, mask=is_there)
    if HAS_WORK:
        tl.store(WORK + at, theta.to(WORK.dtype.element_ty), mask=is_there)


@triton.jit
def shrink(
    ROWS,
    PENALTIES,
    THETA,
    SECOND,
    WORK,
    UPDATES,
    lr_sum,
    log2_beta2,
    eps,
    IS_ADAPTIVE: tl.constexpr,
    NEWTON_STEPS: tl.constexpr,
    HAS_WORK: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """The proximal step of the group lasso for some units of a layer; see ``pruning.py``.

    ROWS has a line for each program: where the first unit's numbers begin, units, numbers a unit,
    and from where to where the next unit's begin. The metric is AdamW's, or one of equal numbers,
    which PENALTIES hold already.
    """
    field = ROWS + tl.program_id(0) * NUM_FIELDS
    start = tl.load(field)
    rows = tl.load(field + 1)
    columns = tl.load(field + 2)
    stride = tl.load(field + 3)
    threshold = lr_sum * tl.load(PENALTIES + tl.program_id(0))
    correction = 1.0
    if IS_ADAPTIVE:
        correction = _unbiased(UPDATES, log2_beta2)

    # r is a unit's length after the step, by Newton's method from zero
    r = tl.zeros((BM,), tl.float32)
    is_dead = tl.full((BM,), False, tl.int1)
    for i in range(NEWTON_STEPS):
        value = tl.zeros((BM,), tl.float32)
        slope = tl.zeros((BM,), tl.float32)
        for column in range(0, columns, BN):
            at, is_there = _block(start, rows, columns, stride, column, BM, BN)
            w = tl.load(THETA + at, mask=is_there, other=0.0)
            c = _thresholds(SECOND, at, is_there, threshold, correction, eps, IS_ADAPTIVE)
            inverse = 1.0 / (r[:, None] + c)
            squares = w * inverse * (w * inverse)
            value += tl.sum(squares, 1)
            slope += tl.sum(squares * inverse, 1)
        if i == 0:
            is_dead = value <= 1.0
        # a dead unit has no length, and may have no slope either
        longer = r + value * (tl.sqrt(value) - 1.0) / tl.where(is_dead, 1.0, slope)
        r = tl.where(longer < 0, 0.0, longer)

    for column in range(0, columns, BN):
        at, is_there = _block(start, rows, columns, stride, column, BM, BN)
        w = tl.load(THETA + at, mask=is_there, other=0.0)
        c = _thresholds(SECOND, at, is_there, threshold, correction, eps, IS_ADAPTIVE)
        # a NaN is not dead and stays NaN: divergence must show
        shrunk = tl.where(is_dead[:, None], 0.0, w * (r[:, None] / (r[:, None] + c)))
        tl.store(THETA + at, shrunk, mask=is_there)
        if HAS_WORK:
            tl.store(WORK + at, shrunk.to(WORK.dtype.element_ty), mask=is_there)


@triton.jit
def _block(start, rows, columns, stride, column, BM: tl.constexpr, BN: tl.constexpr):
    """Places of some numbers of each unit, and whether they are there."""
    row = tl.arange(0, BM)
    column += tl.arange(0, BN)
    at = start + row[:, None] * stride + column[None, :]
    return at, (row < rows)[:, None] & (column < columns)[None, :]


@triton.jit
def _thresholds(SECOND, at, is_there, threshold, correction, eps, IS_ADAPTIVE: tl.constexpr):
    """What the numbers are measured by: the threshold times the diagonal of the metric."""
    if IS_ADAPTIVE:
        second = tl.load(SECOND + at, mask=is_there, other=0.0)
        return threshold / (tl.sqrt(second / correction) + eps)
    return tl.full(at.shape, 0.0, tl.float32) + threshold
