"""The noise of chains on a device, in the plainest way: Philox4x32-10 and the normal quantile."""

import torch

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
BITS = 0xFFFFFFFF


def philox(counter, key):
    """Four words of 32 bits from a counter of four and a key of two (Salmon et al. 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (
            (second >> 32) ^ c1 ^ k0,
            second & BITS,
            (first >> 32) ^ c3 ^ k1,
            first & BITS,
        )
        k0, k1 = (k0 + W0) & BITS, (k1 + W1) & BITS
    return c0, c1, c2, c3


def normal(word):
    """The normal quantile of a word; its last bit is the side."""
    tail = torch.tensor(((word >> 1) + 0.5) / 2**32, dtype=torch.float64)
    z = float(torch.special.ndtri(tail))
    return -z if word & 1 else z


def noise(key, step, places, *, draw=0, quarter=256):
    """The numbers of a chain's step at some places of its block; ``draw`` 1 is a fresh momentum."""
    numbers = []
    for place in places:
        block, at = divmod(int(place), 4 * quarter)
        which, lane = divmod(at, quarter)
        counter = (block * quarter + lane, step & BITS, step >> 32, draw)
        words = philox(counter, (key & BITS, key >> 32))
        numbers.append(normal(words[which]))
    return torch.tensor(numbers)
