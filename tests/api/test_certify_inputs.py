"""``gn.certify``: certificates of inputs of one's own."""

import numpy as np
import pytest
import torch
from torch import Tensor

import gped_nas as gn
from gped_nas.api.asked_networks import asked_student
from gped_nas.data.normalization import Normalization
from gped_nas.data.scale import ValueRange
from gped_nas.distill.student import Student, StudentSpec
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.certify.asked import bounds_of
from gped_nas.evaluate.certify.region import parse_region
from gped_nas.targets.base import TARGETS

UNIT = ValueRange(0.0, 1.0)


def student(scale: ValueRange | None = UNIT) -> Student:
    """It answers 1 where the first pixel is above the second one: lead |x0 - x1|."""
    spec = StudentSpec(
        family="mlp",
        input_shape=(1, 1, 2),
        class_names=("below", "above"),
        targets=(TARGETS["predictive"],),
        normalization=Normalization(0.0, 1.0),
        storage_dtype="float32",
        scale=scale,
    )
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    params = {"layers.0.weight": weight, "layers.0.bias": torch.zeros(2)}
    return Student(spec, params).eval()


def inputs(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor(pairs).view(-1, 1, 1, 2)


def test_a_lead_is_known_by_hand() -> None:
    # at a distance of .2, radii of .05 leave .1, and radii of .15 change the answer
    x = inputs((0.6, 0.4), (0.2, 0.7), (0.3, 0.1))
    near = gn.certify(student(), x, [1, 0, 0], eps=0.05)
    assert near.verdict_N.tolist() == ["certified", "certified", "broken"]
    assert near.lead_N[:2] == pytest.approx([0.1, 0.4], abs=1e-5)
    assert near.share("certified") == pytest.approx(2 / 3)

    far = gn.certify(student(), x.numpy(), np.array([1, 0, 0]), eps=0.15)
    assert far.verdict_N.tolist() == ["broken", "certified", "broken"]
    broken = far.inputs[far.places("broken")]
    answers = student().predict(broken)["predictive"].argmax(1)
    assert answers.tolist() == [0, 1] and (broken - x[[0, 2]]).abs().max() <= 0.15 + 1e-6

    without = gn.certify(student(), x, [1, 0, 0], eps=0.15, attack="none", exact=True)
    assert without.verdict_N.tolist() == far.verdict_N.tolist()


@pytest.mark.parametrize("lead", [1e-9, 1e-8, 3e-8, 1e-7, 1e-6, 1e-5])
def test_a_lead_that_a_softmax_loses_is_none(lead: float) -> None:
    """Two logits that differ by less than float32 tells apart have one probability: no answer."""
    spec = student().spec
    params = {"layers.0.weight": torch.zeros(2, 2), "layers.0.bias": torch.tensor([0.0, lead])}
    narrow = Student(spec, params).eval()
    x = inputs((0.6, 0.4))
    is_served = bool(narrow.predict(x)["predictive"].argmax(1) == 1)

    by_bounds = gn.certify(narrow, x, [1], eps=0.05).share("certified") == 1
    by_programme = gn.certify(narrow, x, [1], eps=0.05, exact=True).share("certified") == 1
    stays = parse_region(["class is above"], spec.class_names, "here")
    raw = x.double()
    in_a_box = bool(bounds_of(asked_student(narrow), stays)(raw - 0.1, raw + 0.1) > 0)

    assert is_served or not (by_bounds or by_programme or in_a_box)
    assert by_bounds == by_programme == in_a_box == (lead > 2e-6)


def test_pixels_stay_within_the_range() -> None:
    # an answer of 1 at (1, .9) would need a first pixel above 1, or a second one far below .9
    x = inputs((0.9, 1.0))
    assert gn.certify(student(), x, [0], eps=0.04).verdict_N.tolist() == ["certified"]
    clipped = gn.certify(student(), x, [0], eps=0.06, bounds="ibp")
    assert clipped.lead_N[0] == pytest.approx(0.94 - 0.96, abs=1e-5)


@pytest.mark.parametrize(
    ("error", "says", "changed"),
    [
        (ConfigError, "at least 0", {"eps": -0.1}),
        (ConfigError, "did you mean 'crown'", {"bounds": "crow"}),
        (ConfigError, "did you mean 'apgd'", {"attack": "apg"}),
        (ConfigError, "time_limit: found 0", {"exact": True, "time_limit": 0.0}),
        (ConfigError, "found Identity, expected a student", {"student": torch.nn.Identity()}),
        (ConfigError, "certify: found a predictor that does not say", {"student": student(None)}),
        (DataError, "expected classes from 0 to 1", {"y": [2]}),
        (DataError, "certify: found labels of shape", {"y": [1, 0]}),
        (DataError, "within the data's range, 0 to 1", {"x": inputs((1.5, 0.0))}),
    ],
)
def test_what_has_no_certificate_is_refused(
    error: type[Exception], says: str, changed: dict[str, object]
) -> None:
    given: dict[str, object] = {"student": student(), "x": inputs((0.6, 0.4)), "y": [1]}
    given |= {"eps": 0.05, **changed}
    who, x, y = given.pop("student"), given.pop("x"), given.pop("y")
    with pytest.raises(error, match=says):
        gn.certify(who, x, y, **given)  # type: ignore[arg-type]
