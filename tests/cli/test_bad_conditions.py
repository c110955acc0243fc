"""Conditions whose functions are wrong: told by the command before anything is sampled."""

from typing import Any

import pytest
import torch

from gped_nas.evaluate.conditions import CONDITIONS, add_condition
from tests.cli.harness import Home, refused

BROKEN: dict[str, tuple[Any, int, tuple[str, ...]]] = {
    "another shape": (lambda raw: raw[:, :, :4], 2, ("found inputs (20, 1, 4, 8)", "as they were")),
    "fewer inputs": (lambda raw: raw[1:], 2, ("found inputs (19, 1, 8, 8)", "as they were")),
    "bytes": (lambda raw: raw.byte(), 2, ("of torch.uint8", "of torch.float32")),
    "not a number": (lambda raw: raw * torch.nan, 2, ("found inputs that are not finite",)),
    "infinite": (lambda raw: raw / 0, 2, ("found inputs that are not finite",)),
    "nothing": (lambda raw: None, 2, ("found NoneType", "return one")),
    "an error": (lambda raw: next(iter(())), 2, ("function raised StopIteration", "mend it")),
    "an argument that is not there": (
        lambda raw, *, labls: raw,
        2,
        ("its function takes 'labls', which it is not given", "'labels'"),
    ),
}


@pytest.mark.parametrize("key", ["conditions", "ood"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_condition_that_gives_no_inputs_is_told_before_any_work(
    home: Home, monkeypatch: pytest.MonkeyPatch, case: str, key: str
) -> None:
    CONDITIONS["clean"]
    monkeypatch.setattr(CONDITIONS, "_items", dict(CONDITIONS.items()))
    change, code, says = BROKEN[case]
    add_condition("broken", "broken")(change)

    setting = "conditions=[clean, broken]" if key == "conditions" else "ood=[broken]"
    says = (f"tiny.yaml: {key}: ", "condition 'broken': ", *says)
    refused(code, "run", home.space, "--out", home.out, "--set", setting, says=says)
    assert not home.out.exists() and not home.cache.exists()


def test_a_condition_that_asks_the_predictor_is_believed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told where it is measured: there is nobody to be asked before."""
    CONDITIONS["clean"]
    monkeypatch.setattr(CONDITIONS, "_items", dict(CONDITIONS.items()))

    @add_condition("aimed", "aimed")
    def aimed(raw: Any, *, predictor: Any) -> Any:
        return raw[: len(predictor.predict(raw)) - 1]

    says = ("condition 'aimed': found inputs (287, 1, 8, 8)",)
    setting = "conditions=[clean, aimed]"
    refused(2, "run", home.space, "--out", home.out, "--set", setting, says=says)
    assert home.cache.exists()
