"""The three parts of a dataset: those that its source gives, and those that are carved."""

from dataclasses import dataclass

from torch import Tensor

from gped_nas.data.splits import Split, SplitRule, carve, carve_unseen
from gped_nas.errors import DataError


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts, and how they came about.

    Attributes:
        train, validation, test: the parts.
        validation_text, test_text: where the two are from, with their sizes.
        notes: what a reader must know, a sentence each.
    """

    train: Split
    validation: Split
    test: Split
    validation_text: str
    test_text: str
    notes: tuple[str, ...] = ()


def carve_parts(
    examples: Split,
    test: Split | float,
    validation: Split | float,
    *,
    seed: int,
    where: str,
    rule: SplitRule,
    seen_N: Tensor | None = None,
) -> Parts:
    """The parts of a source.

    Args:
        examples: the labeled ones to carve from.
        test: the source's own test part, or the fraction of ``examples`` to carve as one.
        validation: likewise, of the examples outside ``test``.
        seed: of the permutations.
        where: file or folder of the source, for messages.
        rule: how parts are carved.
        seen_N: which examples the teacher was trained on, bool; None where nothing is said.

    Raises:
        DataError: a part would be empty, or test examples would be some that the teacher has seen.
    """
    if seen_N is not None:
        return _carve_unseen_parts(
            examples, test, validation, seen_N, seed=seed, where=where, rule=rule
        )

    carved = "carved class by class" if rule == "stratified" else "carved"
    if examples.group is not None:
        carved += ", groups kept together,"
    rest = examples
    test_text = validation_text = "{} examples, as the source gives them"
    if not isinstance(test, Split):
        test, rest = carve(examples, test, seed=seed, part="test", where=where, rule=rule)
        test_text = f"{{}} of {len(examples)} examples, {carved} with seed {seed}"

    train = rest
    if not isinstance(validation, Split):
        validation, train = carve(
            rest, validation, seed=seed, part="validation", where=where, rule=rule
        )
        validation_text = f"{{}} of the {len(rest)} examples left, {carved} with seed {seed}"
    return Parts(
        train,
        validation,
        test,
        validation_text.format(len(validation)),
        test_text.format(len(test)),
    )


_UNSEEN = "{} of the {} examples that the teacher has not seen, carved with seed {}"


def _carve_unseen_parts(
    examples: Split,
    test: Split | float,
    validation: Split | float,
    seen_N: Tensor,
    *,
    seed: int,
    where: str,
    rule: SplitRule,
) -> Parts:
    """As ``carve_parts``, from examples that the teacher has not seen.

    Where they are fewer than both parts ask for, both get less of them, in proportion. Where there
    are none, validation is carved from seen ones, and a note says so.
    """
    rest = examples
    test_text = "{} examples, as the source gives them"
    if not isinstance(test, Split):
        fraction = _affordable(test, validation, seen_N, where)
        test_text = _UNSEEN.format("{}", int((~seen_N).sum()), seed)
        test, rest, seen_N = carve_unseen(
            examples, fraction, seen_N, seed=seed, part="test", where=where, rule=rule
        )

    train, notes = rest, list[str]()
    validation_text = "{} examples, as the source gives them"
    if not isinstance(validation, Split):
        validation, train, validation_text, *notes = _carve_unseen_validation(
            rest, validation, seen_N, seed=seed, where=where, rule=rule
        )
    return Parts(
        train,
        validation,
        test,
        validation_text.format(len(validation)),
        test_text.format(len(test)),
        tuple(notes),
    )


def _affordable(test: float, validation: Split | float, seen_N: Tensor, where: str) -> float:
    """The fraction of all examples that may be carved for test.

    Raises:
        DataError: the teacher has seen all of them.
    """
    total, num_unseen = len(seen_N), int((~seen_N).sum())
    if not num_unseen:
        raise DataError(
            f"{where}: found no test part, and a teacher that was trained on all {total} examples "
            "(teacher.trained_on), expected test examples that it has not seen; give x_test and "
            "y_test, or a test file"
        )

    wanted = round(total * test)
    if not isinstance(validation, Split):
        wanted += round((total - wanted) * validation)
    return test * min(1.0, num_unseen / max(wanted, 1))


def _carve_unseen_validation(
    examples: Split, fraction: float, seen_N: Tensor, *, seed: int, where: str, rule: SplitRule
) -> tuple[Split, Split, str, *tuple[str, ...]]:
    """Validation, the rest, how it was carved, and what must be known of that."""
    num_unseen = int((~seen_N).sum())
    if num_unseen:
        validation, train, _ = carve_unseen(
            examples, fraction, seen_N, seed=seed, part="validation", where=where, rule=rule
        )
        return validation, train, _UNSEEN.format("{}", num_unseen, seed)

    validation, train = carve(
        examples, fraction, seed=seed, part="validation", where=where, rule=rule
    )
    note = (
        f"The teacher was trained on all {len(examples)} examples that validation is carved from: "
        "students are chosen by answers that are better than it gives elsewhere. Give x_val and "
        "y_val, or a validation file, that it has not seen."
    )
    text = f"{{}} examples that the teacher has seen, carved with seed {seed}"
    return validation, train, text, note
