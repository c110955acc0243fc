"""The device program that walks over a table of tiles.

Triton compiles this file, so it says things in Triton's way. With ``TRITON_INTERPRET=1`` in the
environment the same programs run on a CPU, one after the other.
"""

import triton
import triton.language as tl

NUM_FIELDS = tl.constexpr(16)


# of whatever length a table is, the program is the same
@triton.jit(do_not_specialize=["num_tiles"])
def walk(
    TILES,
    num_tiles,
    COUNTERS,
    READ,
    OUTPUT,
    OUTPUT_GRAD,
    CENTER,
    WEIGHT,
    WEIGHT_GRAD,
    batch,
    IS_CENTERED: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    MOST_POLLS: tl.constexpr,
):
    """Take tiles until none is left.

    COUNTERS are the next ticket, then the slots. READ and OUTPUT are activations (rows, batch),
    with and without what is taken off units: one buffer where nothing is. The batch is a multiple
    of 16, and its last columns may be padding, whose gradients are zero.
    """
    ticket = tl.atomic_add(COUNTERS, 1, sem="relaxed")
    while ticket < num_tiles:
        # asked for early: the answer takes as long as a small tile
        next_ticket = tl.atomic_add(COUNTERS, 1, sem="relaxed")

        field = TILES + ticket * NUM_FIELDS
        kind = tl.load(field)
        rows = tl.multiple_of(tl.load(field + 1), 16)
        columns = tl.multiple_of(tl.load(field + 2), 16)
        weight = tl.multiple_of(tl.load(field + 3), 16)
        bias = tl.multiple_of(tl.load(field + 4), 16)
        first_input = tl.load(field + 5)
        first_output = tl.load(field + 6)
        row = tl.multiple_of(tl.load(field + 7), 16)
        column = tl.multiple_of(tl.load(field + 8), 16)
        is_last = tl.load(field + 9)
        signal = tl.load(field + 13)
        # zero; of a tile that waited in vain NaN, so that no wrong number passes for a right one
        trouble = _wait(field, COUNTERS, MOST_POLLS)

        # of the result
        r = row + tl.arange(0, BM)
        c = column + tl.arange(0, BN)
        if kind == 0:
            acc = _outputs(
                WEIGHT + weight,
                READ + first_input * batch,
                r, c, rows, columns, batch, BM, BN, BK, PRECISION,
            )  # fmt: skip
            b = tl.load(WEIGHT + bias + r, mask=r < rows, other=0.0)
            acc += b.to(tl.float32)[:, None] + trouble
            if is_last == 0:
                acc = tl.maximum(acc, 0.0, propagate_nan=tl.PropagateNan.ALL)

            at = (first_output + r)[:, None] * batch + c[None, :]
            is_there = (r < rows)[:, None] & (c < batch)[None, :]
            rounded = acc.to(OUTPUT.dtype.element_ty)
            tl.store(OUTPUT + at, rounded, mask=is_there)
            if IS_CENTERED:
                center = tl.load(CENTER + first_output + r, mask=r < rows, other=0.0)
                centered = rounded.to(tl.float32) - center.to(tl.float32)[:, None]
                tl.store(READ + at, centered.to(READ.dtype.element_ty), mask=is_there)
        elif kind == 1:
            acc = _input_gradients(
                WEIGHT + weight,
                OUTPUT_GRAD + first_output * batch,
                r, c, rows, columns, batch, BM, BN, BK, PRECISION,
            )  # fmt: skip
            at = (first_input + r)[:, None] * batch + c[None, :]
            is_there = (r < columns)[:, None] & (c < batch)[None, :]
            h = tl.load(OUTPUT + at, mask=is_there, other=0.0)
            passed = tl.where(h > 0, acc, 0.0) + trouble
            tl.store(OUTPUT_GRAD + at, passed.to(OUTPUT_GRAD.dtype.element_ty), mask=is_there)
        else:
            acc, bias_acc = _weight_gradients(
                OUTPUT_GRAD + first_output * batch,
                READ + first_input * batch,
                r, c, rows, columns, batch, BM, BN, BK, PRECISION,
            )  # fmt: skip
            acc += trouble
            at = weight + r[:, None] * columns + c[None, :]
            is_there = (r < rows)[:, None] & (c < columns)[None, :]
            tl.store(WEIGHT_GRAD + at, acc.to(WEIGHT_GRAD.dtype.element_ty), mask=is_there)
            if column == 0:
                rounded_bias = bias_acc.to(WEIGHT_GRAD.dtype.element_ty)
                tl.store(WEIGHT_GRAD + bias + r, rounded_bias, mask=r < rows)

        if signal >= 0:
            # all threads have written before the first one tells
            tl.debug_barrier()
            tl.atomic_add(COUNTERS + 1 + signal, 1, sem="release")
        ticket = next_ticket


@triton.jit
def _wait(FIELD, COUNTERS, MOST_POLLS: tl.constexpr):
    """Until all tiles that this one reads from are done: zero, or NaN after too many looks."""
    first_slot = tl.load(FIELD + 10)
    num_slots = tl.load(FIELD + 11)
    count = tl.load(FIELD + 12)
    polls = 0
    for slot in range(first_slot, first_slot + num_slots):
        is_done = tl.atomic_add(COUNTERS + 1 + slot, 0, sem="acquire") >= count
        while (is_done == 0) & (polls < MOST_POLLS):
            is_done = tl.atomic_add(COUNTERS + 1 + slot, 0, sem="acquire") >= count
            polls += 1
    tl.debug_barrier()
    return tl.where(polls < MOST_POLLS, 0.0, float("nan"))


@triton.jit
def _outputs(
    WEIGHT,
    READ,
    r,
    c,
    rows,
    columns,
    batch,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Weights (rows, columns) times inputs (columns, batch)."""
    acc = tl.zeros((BM, BN), tl.float32)
    for k0 in range(0, columns, BK):
        k = k0 + tl.arange(0, BK)
        w = tl.load(
            WEIGHT + r[:, None] * columns + k[None, :],
            mask=(r < rows)[:, None] & (k < columns)[None, :],
            other=0.0,
        )
        x = tl.load(
            READ + k[:, None] * batch + c[None, :],
            mask=(k < columns)[:, None] & (c < batch)[None, :],
            other=0.0,
        )
        acc = tl.dot(w, x, acc, input_precision=PRECISION)
    return acc


@triton.jit
def _input_gradients(
    WEIGHT,
    OUTPUT_GRAD,
    r,
    c,
    rows,
    columns,
    batch,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Weights (rows, columns), turned, times gradients by outputs (rows, batch)."""
    acc = tl.zeros((BM, BN), tl.float32)
    for k0 in range(0, rows, BK):
        k = k0 + tl.arange(0, BK)
        w = tl.load(
            WEIGHT + k[:, None] * columns + r[None, :],
            mask=(k < rows)[:, None] & (r < columns)[None, :],
            other=0.0,
        )
        g = tl.load(
            OUTPUT_GRAD + k[:, None] * batch + c[None, :],
            mask=(k < rows)[:, None] & (c < batch)[None, :],
            other=0.0,
        )
        acc = tl.dot(tl.trans(w), g, acc, input_precision=PRECISION)
    return acc


@triton.jit
def _weight_gradients(
    OUTPUT_GRAD,
    READ,
    r,
    c,
    rows,
    columns,
    batch,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients by outputs (rows, batch) times inputs (columns, batch), turned; and their sums."""
    acc = tl.zeros((BM, BN), tl.float32)
    bias_acc = tl.zeros((BM,), tl.float32)
    for k0 in range(0, batch, BK):
        k = k0 + tl.arange(0, BK)
        g = tl.load(
            OUTPUT_GRAD + r[:, None] * batch + k[None, :],
            mask=(r < rows)[:, None] & (k < batch)[None, :],
            other=0.0,
        )
        x = tl.load(
            READ + c[:, None] * batch + k[None, :],
            mask=(c < columns)[:, None] & (k < batch)[None, :],
            other=0.0,
        )
        acc = tl.dot(g, tl.trans(x), acc, input_precision=PRECISION)
        bias_acc += tl.sum(g.to(tl.float32), 1)
    return acc, bias_acc
