"""How a space calls conditions: texts, settings under a name of the user's, and every message."""

from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

from gped_nas import rng
from gped_nas.config import Config
from gped_nas.data.scale import scale_of
from gped_nas.errors import ConfigError, GpedError, RegistryError
from gped_nas.evaluate.condition_names import parse_condition, parse_conditions
from gped_nas.evaluate.conditions import CONDITIONS, Condition, add_condition


class Shift(Config):
    pixels: int | None = Field(default=None, ge=1, description="pixels to the right")
    severity: int | None = Field(default=None, ge=1, le=5)
    fill: float = 0.0


class Push(Config):
    epsilon: float = Field(ge=0)
    norm: str = "linf"


def shifted(raw: Tensor, *, settings: Shift) -> Tensor:
    pixels = settings.pixels or settings.severity or 1
    moved = raw.roll(pixels, dims=-1)
    moved[..., :pixels] = settings.fill
    return moved


@pytest.fixture(autouse=True)
def _further_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conditions of each form, registered for one test."""
    CONDITIONS["clean"]  # the package's own are registered when one is first asked for
    monkeypatch.setattr(CONDITIONS, "_items", dict(CONDITIONS.items()))
    add_condition("brighter", "made brighter", takes_value=True)(lambda raw, value: raw + value)
    add_condition("shifted", "moved", settings=Shift, main="pixels")(shifted)
    add_condition("pushed", "pushed", settings=Push, main="epsilon")(
        lambda raw, settings: raw + settings.epsilon
    )
    add_condition("posed", "posed", settings=Shift)(shifted)


def apply(condition: Condition, raw: Tensor) -> Tensor:
    generator = rng.generator(0, "condition")
    predictor: Any = None
    labels: Any = None
    return condition.apply(
        raw, predictor=predictor, labels=labels, generator=generator, scale=scale_of(raw)
    )


ROW = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("clean", [1, 2, 3, 4]),
        ("brighter-0.5", [1.5, 2.5, 3.5, 4.5]),
        ("brighter-1e1", [11, 12, 13, 14]),
        ("brighter--1", [0, 1, 2, 3]),
        ("shifted-1", [0, 1, 2, 3]),
        ("shifted-2", [0, 0, 1, 2]),
        ("shifted-s3", [0, 0, 0, 1]),
        ("pushed-1", [2, 3, 4, 5]),
        ("posed", [0, 1, 2, 3]),
    ],
)
def test_a_text_names_a_condition_with_its_main_setting(text: str, changed: list[float]) -> None:
    condition = parse_condition(text, "f")
    assert condition.name == condition.to_json() == text
    assert apply(condition, ROW).tolist() == [changed]


def test_a_user_names_a_condition_with_all_its_settings() -> None:
    settings = {"name": "shifted", "pixels": 2, "fill": 9.0}
    expected = [[9.0, 9.0, 1.0, 2.0]]

    for entries in (["clean", {"far": settings}], {"far": settings}):
        clean, far = parse_conditions(entries, "f")
        assert (clean.name, far.name, far.kind) == ("clean", "far", "shifted")
        assert apply(far, ROW).tolist() == expected

    # what a run writes to config.yaml is read as the same conditions
    written = far.to_json()
    assert written == {"far": {**settings, "severity": None}}
    assert parse_conditions(["clean", written], "f") == (clean, far)


def test_one_with_a_value_or_without_settings_can_be_renamed_too() -> None:
    entries = {"light": {"name": "brighter", "value": 2}, "mixed": {"name": "permuted"}}
    clean, light, mixed = parse_conditions(entries, "f")
    assert apply(light, ROW).tolist() == [[3.0, 4.0, 5.0, 6.0]]
    assert mixed.kind == "permuted"
    assert mixed.to_json() == {"mixed": {"name": "permuted"}}


def test_what_goals_name_is_added_to_what_is_listed() -> None:
    asked = [("clean", "f: objectives: nll"), ("brighter-2", "f: constraints: accuracy@brighter-2")]
    names = [c.name for c in parse_conditions(["clean", "permuted"], "f", asked)]
    assert names == ["clean", "permuted", "brighter-2"]

    with pytest.raises(RegistryError, match="^f: objectives: nll@permutd: unknown condition"):
        parse_conditions(["clean"], "f", [("permutd", "f: objectives: nll@permutd")])


NUMBER = "expected a number after"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("permutd", "f: unknown condition 'permutd'; did you mean 'permuted'"),
        ("permuted-3", "f: condition 'permuted' takes no value; found 'permuted-3'"),
        ("posed-3", "f: condition 'posed' takes no value; found 'posed-3'"),
        ("brighter", f"f: found 'brighter', {NUMBER} 'brighter-'"),
        ("brighter-", f"f: found 'brighter-', {NUMBER} 'brighter-'"),
        ("brighter-much", f"f: found 'brighter-much', {NUMBER} 'brighter-'"),
        ("brighter-nan", f"f: found 'brighter-nan', {NUMBER}"),
        ("brighter-inf", f"f: found 'brighter-inf', {NUMBER}"),
        ("shifted", f"f: found 'shifted', {NUMBER} 'shifted-': pixels to the right, or a severity"),
        ("brighter-s1", f"f: found 'brighter-s1', {NUMBER}"),
        ("shifted-far", f"f: found 'shifted-far', {NUMBER} 'shifted-': pixels to the right"),
        ("shifted-1.5", "f: shifted-1.5: pixels: found 1.5, expected a valid integer"),
        ("shifted-0", "f: shifted-0: pixels: found 0, expected greater than or equal to 1"),
        ("shifted-s6", "f: shifted-s6: severity: found 6, expected less than or equal to 5"),
        ("pushed--1", "f: pushed--1: epsilon: found -1, expected greater than or equal to 0"),
        (3, "f: found 3, expected the name of a condition"),
    ],
)
def test_wrong_texts_are_told(text: object, message: str) -> None:
    with pytest.raises(GpedError) as refused:
        parse_condition(text, "f")
    assert str(refused.value).startswith(message)


def named(**settings: Any) -> list[Any]:
    return ["clean", {"mine": settings}]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (3, "f: found 3, expected a list of conditions"),
        (None, "f: found None, expected a list of conditions"),
        ("permuted", "f: found 'permuted', expected a list of conditions"),
        ([], "f: found [], expected none twice and 'clean' among them"),
        (["permuted"], "f: found ['permuted'], expected none twice and 'clean' among them"),
        (["clean", "clean"], "f: found ['clean', 'clean'], expected none twice"),
        (["clean", ["permuted"]], "f[1]: found ['permuted'], expected the name of a condition"),
        (["clean", {}], "f[1]: found {}, expected one name with its settings"),
        (["clean", {"a": {}, "b": {}}], "f[1]: found {'a': {}, 'b': {}}, expected one name"),
        (
            ["clean", "shifted-3", "shifted-3.0"],
            "f[2]: shifted-3.0: pixels: found 3.0, expected a valid integer",
        ),
        (
            ["clean", "brighter-3", "brighter-3.0"],
            "f: 'brighter-3.0' and 'brighter-3' are one condition; remove one",
        ),
        (
            ["clean", "shifted-3", {"mine": {"name": "shifted", "pixels": 3}}],
            "f: 'mine' and 'shifted-3' are one condition; remove one",
        ),
        ({"mine": {"name": "clean"}}, "f: 'mine' and 'clean' are one condition; remove one"),
        ({"mine": None}, "f.mine: found None, expected a mapping with the key 'name'"),
        ({"mine": "permuted"}, "f.mine: found 'permuted', expected a mapping with the key"),
        (named(pixels=3), "f[1].mine: name: found None, expected the name of a condition"),
        (named(name="shiftd"), "f[1].mine: name: unknown condition 'shiftd'; did you mean"),
        (named(name="shifted", pixel=3), "f[1].mine: pixel: unknown key; did you mean 'pixels'"),
        (named(name="shifted", pixels="3"), "f[1].mine: pixels: found the text '3', expected"),
        (named(name="permuted", pixels=3), "f[1].mine: pixels: unknown key"),
        (named(name="pushed"), "f[1].mine: epsilon: missing; give it a value"),
        (named(name="pushed", epsilon=-1.0), "f[1].mine: epsilon: found -1.0, expected greater"),
        ({"permuted": {"name": "clean"}}, "f: found the name 'permuted', which means a condition"),
        ({"shifted-3": {"name": "clean"}}, "f: found the name 'shifted-3', which means a cond"),
        ({"a@b": {"name": "clean"}}, "f: found the name 'a@b', expected a letter, then letters"),
        ({"": {"name": "clean"}}, "f: found the name '', expected a letter"),
        ({3: {"name": "clean"}}, "f: found the name 3, expected a letter"),
    ],
)
def test_wrong_lists_are_told(entries: object, message: str) -> None:
    with pytest.raises(GpedError) as refused:
        parse_conditions(entries, "f")
    assert str(refused.value).startswith(message)


def test_a_condition_has_one_form_of_settings_and_a_main_one_among_them() -> None:
    with pytest.raises(RegistryError, match="'x': found takes_value and settings, expected one"):
        add_condition("x", "x", takes_value=True, settings=Shift)
    for settings in (None, Shift):
        with pytest.raises(RegistryError, match="'x': found main='width', expected a field of"):
            add_condition("x", "x", settings=settings, main="width")


def test_a_function_is_given_what_it_names() -> None:
    given: dict[str, Any] = {}

    def some(raw: Tensor, *, generator: Any) -> Tensor:
        given["some"] = {"generator": generator}
        return raw

    def everything(raw: Tensor, **offered: Any) -> Tensor:
        given["everything"] = offered
        return raw

    for name, change in (("some", some), ("everything", everything)):
        apply(Condition(name, "", change, kind=name, chosen=Shift(pixels=1)), ROW)
    assert list(given["some"]) == ["generator"]
    assert {"predictor", "labels", "generator", "scale", "settings"} == set(given["everything"])
    with pytest.raises(ConfigError):
        parse_conditions("clean", "f")
