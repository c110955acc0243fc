"""AUROC against counting pairs."""

import numpy as np
import pytest

from gped_nas.errors import DataError
from gped_nas.evaluate.uncertainty import auroc


def test_it_is_the_share_of_pairs_in_order_with_ties_counting_half() -> None:
    # pairs (in, out): 1<2, 1<3, 2=2, 2<3, 3>2, 3=3: (3 + 1/2 + 1/2) / 6
    assert auroc(np.array([1.0, 2, 3]), np.array([2.0, 3])) == pytest.approx(4 / 6)
    generator = np.random.default_rng(0)
    inside, outside = (
        generator.integers(0, 9, 40).astype(float),
        generator.integers(2, 12, 30).astype(float),
    )
    pairs = [(a < b) + (a == b) / 2 for a in inside for b in outside]
    assert auroc(inside, outside) == pytest.approx(np.mean(pairs))
    assert auroc(outside, inside) == pytest.approx(1 - np.mean(pairs))
    assert auroc(inside * 1e3, outside * 1e3) == auroc(
        inside, outside
    )  # large scores do not saturate
    assert auroc(np.array([0.0]), np.array([np.inf])) == 1


@pytest.mark.parametrize("bad", [np.array([]), np.array([1.0, np.nan])])
def test_what_cannot_be_ranked_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="AUROC"):
        auroc(bad, np.ones(2))
