"""AUROC against counting pairs."""

import numpy as np
import pytest

from gped_nas.errors import DataError
from gped_nas.evaluate.uncertainty import auroc


def test_it_is_the_share_of_pairs_in_order_with_ties_counting_half() -> None:
    # Pairs (in, out): 1<2, 1<3, 2=2, 2<3, 3>2, 3=3: (3 + 1/2 + 1/2) / 6.
    assert auroc(np.array([1.0, 2, 3]), np.array([2.0, 3])) == pytest.approx(4 / 6)

    generator = np.random.default_rng(0)
    inside = generator.integers(0, 9, 40).astype(float)
    outside = generator.integers(2, 12, 30).astype(float)
    is_below = inside[:, None] < outside
    is_tied = inside[:, None] == outside
    share = np.mean(is_below + is_tied / 2)
    assert auroc(inside, outside) == pytest.approx(share)
    assert auroc(outside, inside) == pytest.approx(1 - share)


def test_large_scores_do_not_saturate() -> None:
    inside = np.array([1.0, 2, 3])
    outside = np.array([2.0, 3])
    assert auroc(inside * 1e3, outside * 1e3) == auroc(inside, outside)
    assert auroc(np.array([0.0]), np.array([np.inf])) == 1


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, np.nan])])
def test_what_cannot_be_ranked_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="AUROC"):
        auroc(bad, np.ones(2))
