"""Risks of selective prediction: by hand, and what each example adds to them.

``test_oracles.py`` has their values.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas.errors import ConfigError
from gped_nas.evaluate.scores import SCORES
from gped_nas.evaluate.selective import (
    augrc,
    augrc_pseudo,
    aurc,
    aurc_pseudo,
    risk_coverage,
    risk_rejecting,
)
from gped_nas.evaluate.selective_metrics import accuracy_rejecting_metric


def test_risks_by_hand():
    # kept in this order: a right one, then a wrong and a right one of equal score, a wrong one
    scores = np.array([0.7, 0.2, 0.5, 0.5])
    losses = np.array([1.0, 0.0, 1.0, 0.0])
    coverage, risk = risk_coverage(scores, losses)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0, 0.5 / 2, 1 / 3, 2 / 4])
    assert aurc(scores, losses) == pytest.approx((0.25 + 1 / 3 + 0.5) / 4)
    # kept losses as a share of all four: 0, 0, 1/8, 1/4, 1/2, joined by lines
    assert augrc(scores, losses) == pytest.approx((0 + 1 / 8 + 1 / 4 + 1 / 4) / 4)
    assert risk_rejecting(scores, losses, 0.25) == pytest.approx(1 / 3)
    assert risk_rejecting(scores, losses, 0.0) == 0.5


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from([-np.inf, 0.0, 0.5, 1.0, np.inf]), st.floats(0, 9)),
        min_size=2,
        max_size=12,
    )
)
def test_pseudo_values_are_those_of_leaving_out_each_example(rows):
    scores, losses = np.array(rows).T
    n = len(rows)
    for value_of, pseudo_of in ((aurc, aurc_pseudo), (augrc, augrc_pseudo)):
        pseudo = pseudo_of(scores, losses)
        for i in range(n):
            without = value_of(np.delete(scores, i), np.delete(losses, i))
            slow = n * value_of(scores, losses) - (n - 1) * without
            assert pseudo[i] == pytest.approx(slow, abs=1e-9)


def test_a_share_that_leaves_nothing_is_refused():
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="expected at least 0 and below 1"):
            accuracy_rejecting_metric(SCORES["total"], share)
    assert accuracy_rejecting_metric(SCORES["total"], 0.5).name == "accuracy_rejecting50_total"
