"""The study's document: written whole, read back, refused where it was changed by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from gped_nas.errors import StudyError
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.search.database import sqlite_url
from gped_nas.search.document import (
    DOCUMENT,
    TEST,
    Box,
    Description,
    References,
    StreamPlace,
    StudentTest,
    StudyDocument,
    TeacherSummary,
    read_document,
    read_tests,
    seal,
    unseal,
)
from gped_nas.search.objectives import objective
from gped_nas.search.snapshot import PairedDifference, Reference
from tests.search.fakes import IDENTITY, make_space, open_store, optuna_study

OBJECTIVES = (objective("nll", ""), objective("params", ""))
DIFFERENCE = PairedDifference("student", "teacher", "nll", "test", 0.02, (0.01, 0.03), 360)
REFERENCE = Reference(
    "teacher", "teacher (average)", {Key("nll"): Measured(0.1, 0.05, 0.2, 9)}, {"params": 3}
)
WHOLE = StudyDocument(
    identity=IDENTITY,
    objectives=OBJECTIVES,
    description=Description(
        config={"name": "fake", "seed": 0, "views": [{"policy": "clean"}]},
        split_text="half and half",
        class_names=("cat", "dog"),
        stream=StreamPlace(path="/somewhere", digest="abc"),
        teacher=TeacherSummary(digest="abc", num_samples=2, samples_to_nll=((1.0, 0.5), (2, 0.4))),
        provenance={"seed": 0, "device": "cpu"},
        box=Box(best=(0.0, 17), worst=(1.5, 20_000)),
    ),
    precision="float32",
    notes=("It ended early.",),
    references=References.of([REFERENCE], [DIFFERENCE], {"steps": 3}),
)
TESTED = StudentTest.of({Key("nll", part="test"): Measured(0.3, 0.2, 0.4, 9)}, [DIFFERENCE])


def stored(value: Any) -> Any:
    """What comes out of a database that stores JSON."""
    return json.loads(json.dumps(value))


def test_a_document_is_read_back_as_it_was_written() -> None:
    attributes = {DOCUMENT: stored(WHOLE.to_json())}
    read = read_document(attributes, "here")
    assert read == WHOLE
    assert read is not None and read.to_json() == WHOLE.to_json()
    # an integer of the box stays one: parameters are counted
    assert [type(end) for end in read.description.box.best] == [float, int]  # type: ignore[union-attr]


def test_a_test_evaluation_is_an_attribute_of_its_own(tmp_path: Path) -> None:
    ledger = open_store(make_space(), tmp_path / "study.db")
    ledger.write_test(11, TESTED)
    ledger.write_test(2, TESTED.model_copy(update={"comparisons": ()}))
    again = open_store(make_space(), tmp_path / "study.db").tests()
    assert list(again) == [2, 11]
    assert again[11] == TESTED and again[2].comparisons == ()
    attributes = optuna_study(tmp_path / "study.db").user_attrs
    assert set(attributes) == {DOCUMENT, f"{TEST}2", f"{TEST}11"}


def test_tests_written_by_two_processes_are_both_kept(tmp_path: Path) -> None:
    ann = open_store(make_space(), tmp_path / "study.db")
    bob = open_store(make_space(), tmp_path / "study.db")
    assert ann.tests() == bob.tests() == {}
    ann.write_test(0, TESTED)
    bob.write_test(1, TESTED)
    assert set(ann.tests()) == set(bob.tests()) == {0, 1}


# -- studies made before there was a document

OLD: dict[str, Any] = {
    "gped:objectives": [
        {"name": "nll", "direction": "minimize"},
        {"name": "params", "direction": "minimize"},
    ],
    "gped:identity": IDENTITY,
}
OLD_DESCRIBED: dict[str, Any] = {
    **OLD,
    "gped:config": {"name": "fake", "seed": 0},
    "gped:axes": [
        {"name": "nll", "direction": "minimize", "kind": "metric", "label": "NLL (nats)"},
        {"name": "params", "direction": "minimize", "kind": "cost", "label": "parameters"},
    ],
    "gped:split": "half and half",
    "gped:class_names": ["cat", "dog"],
    "gped:stream": {"path": "/somewhere", "digest": "abc"},
    "gped:teacher": {"digest": "abc", "samples_to_nll": [[1.0, 0.5]], "told earlier": [1]},
    "gped:provenance": {"seed": 0, "device": "cpu"},
    "gped:box": {"best": [0.0, 17], "worst": [1.5, 20_000]},
    "gped:precision": "float32",
    "gped:notes": ["It ended early."],
    "gped:references": {
        "baseline": {"steps": 3},
        "references": [
            {
                "name": "teacher",
                "label": "teacher (average)",
                "metrics": {"nll": 0.1},
                "intervals": {"nll": [0.05, 0.2]},
                "n": {"nll": 9},
                "costs": {"params": 3},
                "note": "",
            }
        ],
        "comparisons": [],
    },
    "gped:test": {"3": {"metrics": {"test_nll": 0.3}, "intervals": {}, "n": {}, "comparisons": []}},
}


def test_points_of_an_older_curve_that_are_no_numbers_are_left_out() -> None:
    teacher = {"samples_to_nll": [[1.0, math.nan], [2.0, 0.5]]}

    document = read_document({**OLD_DESCRIBED, "gped:teacher": teacher}, "here")

    assert document is not None and document.description is not None
    assert document.description.teacher.samples_to_nll == ((2.0, 0.5),)


def test_an_older_study_is_read_into_the_document() -> None:
    document = read_document(OLD_DESCRIBED, "here")
    assert document is not None and document.identity == IDENTITY
    assert document.objectives == OBJECTIVES
    description = document.description
    assert description is not None and description.split_text == "half and half"
    assert description.class_names == ("cat", "dog")
    assert description.box == WHOLE.description.box  # type: ignore[union-attr]
    assert description.teacher.to_json() == OLD_DESCRIBED["gped:teacher"]
    assert (document.precision, document.notes) == ("float32", ("It ended early.",))
    assert document.references is not None and document.references.predictors == (REFERENCE,)
    assert read_tests(OLD_DESCRIBED, "here")[3].metrics == {"test_nll": 0.3}


def test_an_older_study_that_was_only_begun_has_no_description() -> None:
    document = read_document(OLD, "here")
    assert document is not None and document.description is None
    assert [(o.name, o.direction) for o in document.objectives] == [
        ("nll", "minimize"),
        ("params", "minimize"),
    ]


def test_an_older_study_is_given_a_document_when_it_is_next_written(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = optuna.create_study(
        storage=sqlite_url(path), study_name="fake", directions=["minimize", "minimize"]
    )
    for key, value in OLD_DESCRIBED.items():
        study.set_user_attr(key, value)

    ledger = open_store(make_space(), path)
    before = ledger.document
    assert DOCUMENT not in study.user_attrs  # reading writes nothing
    ledger.change(notes=())
    ledger.write_test(4, TESTED)

    after = open_store(make_space(), path)
    assert DOCUMENT in study.user_attrs
    assert after.document == before.with_changes(notes=())
    assert set(after.tests()) == {3, 4}


@pytest.mark.parametrize("attributes", [{}, {"mine": 1}, {"gped:objectives": []}])
def test_a_study_of_another_program_has_no_document(attributes: dict[str, Any]) -> None:
    assert read_document(attributes, "here") is None


# -- edited by hand


def at(path: str, value: Any) -> Callable[[Any], None]:
    *way, last = path.split(".")

    def edit(document: Any) -> None:
        for key in way:
            document = document[int(key) if key.isdigit() else key]
        document[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (at("notes", "It ended early."), "notes"),
        (at("identity", ["1"]), "identity"),
        (at("precision", 32), "precision"),
        (at("description.box.best", ["0", "1"]), "description.box.best.0"),
        (at("description.class_names", None), "description.class_names"),
        (at("description.teacher.num_samples", "2"), "description.teacher.num_samples"),
        (at("description.box.worst", None), "description.box.worst"),
        (at("references.references.0.metrics", 3), "references.references.0.metrics"),
        (at("objectives.0.direction", "down"), "objectives.0.direction"),
        (at("unknown", 1), "unknown"),
        (at("version", "one"), "version"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(edit: Callable[[Any], None], place: str) -> None:
    document = stored(WHOLE.to_json())
    edit(document)
    with pytest.raises(StudyError) as caught:
        read_document({DOCUMENT: document}, "study 'fake'")
    message = str(caught.value)
    assert message.startswith(f"study 'fake': {DOCUMENT}: {place}")
    assert "changed by something other than gped-search; restore" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [None, 3, "text", [], {}])
def test_something_else_in_the_place_of_a_document(value: Any) -> None:
    with pytest.raises(StudyError, match="study 'fake': gped:document: "):
        read_document({DOCUMENT: value}, "study 'fake'")


def test_a_later_document_asks_for_an_upgrade() -> None:
    later = {**WHOLE.to_json(), "version": 2, "something": "new"}
    with pytest.raises(StudyError, match="document version 2, expected 1.; upgrade gped-nas"):
        read_document({DOCUMENT: later}, "study 'fake'")


@pytest.mark.parametrize(
    "attributes",
    [
        {"gped:test": [1]},
        {"gped:test": {"first": {}}},
        {f"{TEST}x": {}},
        {f"{TEST}²": {}},
        {f"{TEST}1": {"metrics": {"test_nll": "low"}}},
        {f"{TEST}1": None},
    ],
)
def test_a_damaged_test_evaluation_is_told(attributes: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match="study 'fake': gped:test"):
        read_tests(attributes, "study 'fake'")


# -- seals


def test_what_was_sealed_is_read_back_through_json() -> None:
    data = {"a": [1, 2.5, None], "b": {"nll": 0.1}}
    stored = json.loads(json.dumps(seal(data, "trial 3")))
    assert unseal(stored, "trial 3", "there") == (data, True)
    assert unseal(data, "trial 3", "there") == (data, False)


@pytest.mark.parametrize(
    "edit",
    [
        lambda stored: stored["b"].update(nll=0.2),
        lambda stored: stored["b"].update(nll=math.nan),
        lambda stored: stored.update(digest="0" * 64),
        lambda stored: stored.update(digest=None),
        lambda stored: stored.update(of="trial 3"),
        lambda stored: stored.update(c=nested(3000)),
    ],
)
def test_a_broken_seal_is_damage(edit: Callable[[Any], None]) -> None:
    stored = seal({"b": {"nll": 0.1}}, "trial 3")
    edit(stored)
    with pytest.raises(StudyError, match="^there: its digest does not fit; it was changed"):
        unseal(stored, "trial 3", "there")


def test_a_seal_is_of_one_thing() -> None:
    with pytest.raises(StudyError, match="its digest does not fit"):
        unseal(seal({"nll": 0.1}, "trial 3"), "trial 4", "there")


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value
