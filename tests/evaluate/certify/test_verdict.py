"""Verdicts: every input is certified, broken or unknown, and each of them is true."""

from functools import partial
from typing import Any

import pytest
import torch

from gped_nas import rng
from gped_nas.distill.student import Student
from gped_nas.errors import GpedError
from gped_nas.evaluate.attacks.settings import WorstSettings
from gped_nas.evaluate.certify import breaking, closing, verdict
from gped_nas.evaluate.certify.box import Box, linf_box
from gped_nas.evaluate.certify.breaking import Attack, inward, is_wrong, look_for_breaks
from gped_nas.evaluate.certify.exact import ExactSettings
from gped_nas.evaluate.certify.networks import network_of_student
from gped_nas.evaluate.certify.verdict import VERDICTS, Judged, judge
from gped_nas.evaluate.predictions import Labels
from gped_nas.evaluate.student import StudentPredictor
from tests.evaluate.certify.small_networks import small_student

RAW = 16 * torch.rand((40, 4), generator=torch.Generator().manual_seed(7))
STUDENT = small_student(4, [12], 3, seed=2)


def _answers(student: Student, raw: torch.Tensor = RAW) -> Labels:
    return student(raw).argmax(1).numpy()


def _box(epsilon: float) -> Box:
    assert STUDENT.spec.scale is not None
    return linf_box(RAW, STUDENT.spec.scale, epsilon)


def _judge(epsilon: float, labels: Labels | None = None, **settings: Any) -> Judged:
    return judge(
        network_of_student(STUDENT),
        StudentPredictor(STUDENT),
        RAW,
        _answers(STUDENT) if labels is None else labels,
        _box(epsilon),
        generator=rng.generator(0, "verdicts"),
        **{"attack": "apgd", **settings},
    )


def test_every_input_has_one_verdict_and_each_is_true() -> None:
    box = _box(0.1)
    labels = _answers(STUDENT)
    judged = _judge(0.1, bounds="ibp")
    assert {*judged.verdict_N.tolist()} == {*VERDICTS}
    assert sum(judged.share(each) for each in VERDICTS) == pytest.approx(1)

    for place in judged.places("certified"):
        points = torch.rand((2000, 4), generator=torch.Generator().manual_seed(int(place)))
        inside = box.low[place] + points.double() * (box.high[place] - box.low[place])
        assert (_answers(STUDENT, inside.float()) == labels[place]).all()
    broken = torch.from_numpy(judged.places("broken"))
    assert (_answers(STUDENT, judged.inputs[broken]) != labels[broken]).all()
    assert box.holds(judged.inputs).all()
    for place in judged.places("unknown"):
        assert torch.equal(judged.inputs[place], RAW[place])


def test_better_bounds_and_a_programme_leave_fewer_unknown() -> None:
    by_ibp, by_crown = _judge(0.1, bounds="ibp"), _judge(0.1)
    closed = _judge(0.1, exact=ExactSettings(time_limit=60))

    assert by_ibp.share("certified") < by_crown.share("certified")
    assert closed.share("unknown") == 0
    for less, more in ((by_ibp, by_crown), (by_crown, closed)):
        for kept in ("certified", "broken"):
            assert {*less.places(kept)} <= {*more.places(kept)}
    assert (closed.lead_N >= by_crown.lead_N).all()


def test_a_programme_breaks_what_nobody_attacked() -> None:
    box, labels = _box(0.1), _answers(STUDENT)
    judged = _judge(0.1, attack="none", exact=ExactSettings(time_limit=60))
    broken = torch.from_numpy(judged.places("broken"))
    assert len(broken) > 3
    assert (_answers(STUDENT, judged.inputs[broken]) != labels[broken]).all()
    assert box.holds(judged.inputs).all()


def test_a_wrong_answer_is_broken_at_any_radius_by_the_input_itself() -> None:
    labels = (_answers(STUDENT) + 1) % 3
    judged = _judge(0.0, labels)
    assert judged.share("broken") == 1
    assert torch.equal(judged.inputs, RAW)


def test_at_no_radius_the_certified_share_is_the_accuracy() -> None:
    labels = _answers(STUDENT)
    labels[:5] = (labels[:5] + 1) % 3
    judged = _judge(0.0, labels)
    assert judged.share("certified") == pytest.approx(35 / 40)
    assert judged.share("broken") == pytest.approx(5 / 40)


def test_what_an_attack_says_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an input outside of its box nor one that is answered rightly breaks anything."""
    unknown = _judge(0.1, attack="none").places("unknown")
    assert len(unknown) > 3

    def outside(predictor: Any, box: Box, *_: Any) -> Any:
        # each second one lies outside of its box, and the others are answered rightly
        inputs = RAW[torch.from_numpy(unknown)].clone()
        inputs[::2] = 16.0 - inputs[::2]
        return inputs, ["said by nobody"]

    monkeypatch.setattr(verdict, "look_for_breaks", outside)
    judged = _judge(0.1)
    assert {*judged.places("unknown")} == {*unknown}
    assert judged.notes == ["said by nobody"]


def test_a_proof_that_an_answer_contradicts_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "margins", lambda *_, **__: torch.ones((40, 3)).double())
    labels = _answers(STUDENT)
    labels[3] = (labels[3] + 1) % 3
    with pytest.raises(GpedError, match="input 3: bounds prove the label .*report it"):
        _judge(0.1, labels)


def test_what_is_too_large_or_too_slow_for_a_programme_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = _judge(0.1, attack="none")
    num = len(before.places("unknown"))

    large = _judge(0.1, attack="none", exact=ExactSettings(max_unstable=0))
    assert (large.verdict_N == before.verdict_N).all()
    assert large.notes == [
        f"{num} inputs have more than 0 unstable units and were not tried exactly"
    ]

    times = iter(range(10_000))
    clock = partial(closing.Clock, now=lambda: float(next(times)))
    monkeypatch.setattr(closing, "Clock", clock)
    slow = _judge(0.1, attack="none", exact=ExactSettings(time_limit=0.5))
    assert (slow.verdict_N == before.verdict_N).all()
    assert slow.notes == [f"{num} inputs were not decided exactly in 0.5 seconds each"]


@pytest.mark.parametrize("attack", ["worst", "apgd"])
def test_an_attack_stays_in_boxes_of_any_size(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaking, "WorstSettings", partial(WorstSettings, queries=30))
    low = RAW.double() - torch.rand((40, 4), generator=torch.Generator().manual_seed(1)).double()
    box = Box(low, RAW.double() + torch.tensor([0.0, 1.0, 2.0, 3.0]).double())
    labels = torch.from_numpy(_answers(STUDENT))
    predictor = StudentPredictor(STUDENT)

    worst, _ = look_for_breaks(predictor, box, labels, attack, rng.generator(0, "boxes"))
    assert box.holds(worst).all()
    assert is_wrong(predictor, worst, labels).sum() > 8


def test_the_nearest_input_of_float32_lies_in_the_box() -> None:
    # the nearest of .7 is below it, and that of .1 above
    low = torch.tensor([[0.7, 0.0]], dtype=torch.float64)
    high = torch.tensor([[0.7 + 2e-7, 0.1]], dtype=torch.float64)
    box = Box(low, high)
    assert not box.holds(torch.tensor([[0.7, 0.05]])) and not box.holds(torch.tensor([[0.7, 0.1]]))

    nearest = inward(box, torch.tensor([[0.0, 9.0]]))
    assert nearest.dtype == torch.float32
    assert box.holds(nearest).all()
    assert 0.1 - nearest[0, 1].double() < 1e-7
