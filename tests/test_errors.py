"""Exit codes, parents and messages of the errors that a user can meet."""

import pickle

import pytest

from gped_nas import errors
from gped_nas.errors import (
    MOST_LISTED,
    GpedError,
    Interrupted,
    RegistryError,
    calling,
    exit_code,
    nearest,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, GpedError)
]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("GpedError", 1),
        ("DivergenceError", 1),
        ("ConfigError", 2),
        ("RegistryError", 2),
        ("DataError", 2),
        ("GateError", 3),
        ("StreamError", 4),
        ("StudyError", 4),
        ("EnvironmentProblem", 5),
        ("Interrupted", 130),
    ],
)
def test_each_class_has_its_exit_code(name, code):
    assert exit_code(getattr(errors, name)("x")) == code


def test_a_subclass_exits_like_its_parent_and_a_signal_by_its_number():
    class OwnStreamError(errors.StreamError):
        pass

    assert exit_code(OwnStreamError("x")) == 4
    assert exit_code(Interrupted("x", 143)) == 143


@pytest.mark.parametrize("cls", CLASSES)
def test_a_message_is_printed_as_it_is_and_the_class_is_in_the_drawing(cls):
    assert str(cls("a 'quoted' message")) == "a 'quoted' message"
    assert cls.__name__ in errors.__doc__
    again = pickle.loads(pickle.dumps(cls("x")))  # workers hand errors to their parent
    assert (type(again), str(again)) == (cls, "x")


@pytest.mark.parametrize("cls", [errors.ConfigError, RegistryError])
def test_a_message_names_options_to_the_command_line_and_arguments_to_python(cls):
    told = "--n-trials: found 0; see --timeout, --set a=b, or run `gped-search run --study-name x`"
    caller = errors.names_options.set(True)
    try:
        assert str(cls(told)) == told
    finally:
        errors.names_options.reset(caller)
    in_python = (
        "n_trials: found 0; see timeout_s, --set a=b, or run `gped-search run --study-name x`"
    )
    assert str(cls(told)) == in_python


def test_standard_parents():
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(RegistryError, KeyError)
    assert issubclass(errors.DivergenceError, ArithmeticError)


def test_nearest_names_one_or_all_or_nothing():
    assert nearest("widht", ["width", "depth"]) == "; did you mean 'width'?"
    assert nearest("xyz", ["width", "depth"]) == "; expected one of: depth, width"
    assert nearest("xyz", []) == ""
    assert nearest(3, ["width"]) == "; expected one of: width"


def test_a_message_lists_no_more_names_than_are_read():
    names = [f"name{i:03}" for i in range(MOST_LISTED)]
    assert nearest("xyz", names).endswith(names[-1])
    text = nearest("xyz", [*names, "other", "others"])
    assert text.endswith(f", {names[-1]} and 2 others") and "other," not in text


@pytest.mark.parametrize("error", [LookupError("no"), SystemExit(0)])
def test_a_function_of_a_piece_that_raises_or_exits_is_named(error):
    with pytest.raises(RegistryError, match=f"metric 'euro'.*{type(error).__name__}"):
        with calling("metric 'euro'", "mend it"):
            raise error
