"""The device programs of a teacher's chains, around the two walks of a step.

``gather`` brings each chain its minibatch, ``likelihood_gradient`` turns raw outputs into the
gradient by them, and ``move`` takes the step: an update of all parameters of all chains, with its
noise. ``descend`` takes that of networks that are trained instead. Triton compiles this file; see
``programs.py``.
"""

import triton
import triton.language as tl

NUM_NUMBERS = tl.constexpr(8)
"""Numbers a step that ``move`` reads, see ``rules.py``."""


@triton.jit
def gather(
    X,
    INDEX,
    PLACE,
    READ,
    size,
    first_rows,
    batch_size,
    columns,
    length,
    BB: tl.constexpr,
    BD: tl.constexpr,
):
    """Write each chain's inputs (size, batch_size) of the present step, turned.

    X is (N, size), INDEX (chains, length, batch_size), and READ has ``first_rows`` rows a chain.
    """
    chain = tl.program_id(2)
    step = tl.load(PLACE)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    d = tl.program_id(0) * BD + tl.arange(0, BD)

    shown = tl.load(INDEX + (chain * length + step) * batch_size + b, mask=b < batch_size, other=0)
    is_there = (b < batch_size)[:, None] & (d < size)[None, :]
    # large data have more numbers than 32 bits can count
    x = tl.load(X + shown.to(tl.int64)[:, None] * size + d[None, :], mask=is_there, other=0.0)

    at = (chain * first_rows + d)[:, None] * columns + b[None, :]
    tl.store(READ + at, tl.trans(x), mask=tl.trans(is_there))


@triton.jit
def likelihood_gradient(
    RAW,
    RAW_GRAD,
    Y,
    INDEX,
    PLACE,
    num_outputs,
    rows,
    batch_size,
    columns,
    length,
    y_columns,
    y_step,
    scale,
    IS_CATEGORICAL: tl.constexpr,
    BU: tl.constexpr,
    BB: tl.constexpr,
):
    """The gradient of minus the log-likelihood by raw outputs (chains * rows, columns).

    ``scale`` is the number of examples over the batch, and over the noise's variance where labels
    are real. Y is (N, y_columns); output u reads column ``u * y_step``.
    """
    chain = tl.program_id(1)
    step = tl.load(PLACE)
    u = tl.arange(0, BU)
    b = tl.program_id(0) * BB + tl.arange(0, BB)
    shown = tl.load(INDEX + (chain * length + step) * batch_size + b, mask=b < batch_size, other=0)

    is_row = u < rows
    is_real = (u < num_outputs)[:, None] & (b < batch_size)[None, :]
    at = (chain * rows + u)[:, None] * columns + b[None, :]
    raw = tl.load(RAW + at, mask=is_real, other=0.0)
    if IS_CATEGORICAL:
        label = tl.load(Y + shown, mask=b < batch_size, other=0)
        shifted = tl.where((u < num_outputs)[:, None], raw, float("-inf"))
        shifted = shifted - tl.max(shifted, 0)[None, :]
        e = tl.exp(shifted)
        gradient = e / tl.sum(e, 0)[None, :] - tl.where(u[:, None] == label[None, :], 1.0, 0.0)
    else:
        of_label = shown[None, :] * y_columns + u[:, None] * y_step
        gradient = raw - tl.load(Y + of_label, mask=is_real, other=0.0)

    gradient = tl.where(is_real, gradient * scale, 0.0)
    tl.store(RAW_GRAD + at, gradient, mask=is_row[:, None] & (b < columns)[None, :])


@triton.jit
def move(
    THETA,
    FIRST,
    GRAD,
    PRIOR,
    NUMBERS,
    KEYS,
    STEPS,
    PLACE,
    size,
    length,
    grad_scale,
    damping,
    RULE: tl.constexpr,
    IS_LAPLACE: tl.constexpr,
    QUARTER: tl.constexpr,
):
    """Move all parameters (chains, size) by one step of a rule.

    RULE is 0 for Langevin steps, 1 for preconditioned ones and 2 for Hamiltonian ones.
    PRIOR (size,) is the prior's precision, or its slope if it is a Laplace one; below zero where
    there is no parameter.
    """
    chain = tl.program_id(1)
    place = tl.load(PLACE)
    step = tl.load(STEPS + chain) + place
    key = tl.load(KEYS + chain)
    numbers = NUMBERS + (chain * length + place) * NUM_NUMBERS
    n0 = tl.load(numbers)
    n1 = tl.load(numbers + 1)
    n2 = tl.load(numbers + 2)
    n3 = tl.load(numbers + 3)
    n4 = tl.load(numbers + 4)

    # four parameters, a quarter of the block apart, share a counter
    lane = tl.program_id(0) * QUARTER + tl.arange(0, QUARTER)
    w0, w1, w2, w3 = _words(key, lane, step, 0)

    for quarter in tl.static_range(4):
        at = tl.program_id(0) * (4 * QUARTER) + quarter * QUARTER + tl.arange(0, QUARTER)
        prior = tl.load(PRIOR + at, mask=at < size, other=-1.0)
        is_there = prior >= 0
        here = chain.to(tl.int64) * size + at
        theta = tl.load(THETA + here, mask=is_there, other=0.0)

        away = theta
        if IS_LAPLACE:
            away = tl.where(away > 0, 1.0, tl.where(away < 0, -1.0, away))
        grad = tl.load(GRAD + here, mask=is_there, other=0.0) + prior * away

        noise = _normal(_choose(w0, w1, w2, w3, quarter))
        if RULE == 0:
            theta += n0 * grad + n1 * noise
        elif RULE == 1:
            square = tl.load(FIRST + here, mask=is_there, other=0.0)
            average = grad * grad_scale
            square += n2 * (average * average - square)
            metric = 1.0 / (tl.sqrt(square * n3) + damping)
            theta += n0 * metric * grad + n1 * tl.sqrt(metric) * noise
            tl.store(FIRST + here, square, mask=is_there)
        else:
            momentum = tl.load(FIRST + here, mask=is_there, other=0.0)
            if n4 >= 0:
                v0, v1, v2, v3 = _words(key, lane, step, 1)
                momentum = n4 * _normal(_choose(v0, v1, v2, v3, quarter))
            momentum += n0 * grad
            theta += n1 * momentum
            momentum = n2 * momentum + n3 * noise
            theta += n1 * momentum
            tl.store(FIRST + here, momentum, mask=is_there)
        tl.store(THETA + here, theta, mask=is_there)


@triton.jit
def descend(
    THETA,
    FIRST,
    SECOND,
    ANCHOR,
    GRAD,
    PRIOR,
    NUMBERS,
    PLACE,
    size,
    length,
    grad_scale,
    share1,
    share2,
    eps,
    HAS_ANCHOR: tl.constexpr,
    IS_LAPLACE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Move all parameters (chains, size) by one step of Adam, see ``rules.py``.

    PRIOR is as in ``move``, but a row for each chain.
    """
    chain = tl.program_id(1)
    numbers = NUMBERS + (chain * length + tl.load(PLACE)) * NUM_NUMBERS
    n0 = tl.load(numbers)
    n1 = tl.load(numbers + 1)

    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = chain.to(tl.int64) * size + at
    prior = tl.load(PRIOR + here, mask=at < size, other=-1.0)
    is_there = prior >= 0
    theta = tl.load(THETA + here, mask=is_there, other=0.0)

    away = theta
    if HAS_ANCHOR:
        away -= tl.load(ANCHOR + here, mask=is_there, other=0.0)
    if IS_LAPLACE:
        away = tl.where(away > 0, 1.0, tl.where(away < 0, -1.0, away))
    grad = tl.load(GRAD + here, mask=is_there, other=0.0) + prior * away
    grad *= grad_scale

    first = tl.load(FIRST + here, mask=is_there, other=0.0)
    second = tl.load(SECOND + here, mask=is_there, other=0.0)
    first += share1 * (grad - first)
    second += share2 * (grad * grad - second)
    theta += n0 * first / (tl.sqrt(n1 * second) + eps)

    tl.store(FIRST + here, first, mask=is_there)
    tl.store(SECOND + here, second, mask=is_there)
    tl.store(THETA + here, theta, mask=is_there)


@triton.jit
def _words(key, lane, step, draw):
    """Four words of 32 bits each, by chain, parameters, step and which draw of the step it is."""
    low = (step & 0xFFFFFFFF).to(tl.uint32)
    high = (step >> 32).to(tl.uint32)
    return tl.philox(key, lane.to(tl.uint32), low, high, draw)


@triton.jit
def _choose(w0, w1, w2, w3, quarter: tl.constexpr):
    if quarter == 0:
        return w0
    elif quarter == 1:
        return w1
    elif quarter == 2:
        return w2
    else:
        return w3


@triton.jit
def _normal(word):
    """Standard normal numbers from 32 random bits each: the normal quantile of them.

    The last bit is the side. The others, m, say how far out: at a tail of (m + 1/2) / 2^32.
    Source: Giles 2010, Approximating the erfinv function, the version in single precision. It is
    right to 1e-5 up to 5.7, and to .003 at the last numbers, beyond which there are none: 6.34.
    """
    m = (word >> 1).to(tl.float32)
    tail = (m + 0.5) * 2.3283064365386963e-10
    # minus the logarithm of (1 - x) (1 + x) at x = 1 - 2 tail, without its cancellation
    w = -tl.log(4.0 * tail * (1.0 - tail))
    x = 1.0 - 2.0 * tail

    near = w - 2.5
    p = 2.81022636e-08
    p = 3.43273939e-07 + p * near
    p = -3.5233877e-06 + p * near
    p = -4.39150654e-06 + p * near
    p = 0.00021858087 + p * near
    p = -0.00125372503 + p * near
    p = -0.00417768164 + p * near
    p = 0.246640727 + p * near
    p = 1.50140941 + p * near

    far = tl.sqrt(tl.maximum(w, 5.0)) - 3.0
    q = -0.000200214257
    q = 0.000100950558 + q * far
    q = 0.00134934322 + q * far
    q = -0.00367342844 + q * far
    q = 0.00573950773 + q * far
    q = -0.0076224613 + q * far
    q = 0.00943887047 + q * far
    q = 1.00167406 + q * far
    q = 2.83297682 + q * far

    size = 1.4142135623730951 * x * tl.where(w < 5.0, p, q)
    return tl.where((word & 1) == 1, size, -size)
