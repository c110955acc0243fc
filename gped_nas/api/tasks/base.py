"""What a task is: a function of a bench, and of its argument, to rows.

A task measures what a posterior is for. It is called by its name, or by its name and an argument::

    @add_task("selective", "who is asked less, and errs less")
    def selective(bench, argument):
        rows = []
        for subject in bench.subjects:
            answers = bench.answers(subject)
            rows += bench.rows(subject, bench.measures(answers, only="selective"))
        return rows

``misclassification`` has no argument, and ``ood:permuted`` has ``permuted``. ``bench.subjects`` are
those whose rows are missing: one at a time, unless the task says ``is_together``. A subject that a
task cannot judge is left out: ``raise LeftOut(why)`` does that where subjects come one at a time,
and ``bench.leave_out(subject, why)`` everywhere.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gped_nas.data.base import Task as LabelKind
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.registry import Registry

if TYPE_CHECKING:
    from gped_nas.api.tasks.bench import Bench

Row = dict[str, Any]
"""One measure, as ``evaluate.measured.rows`` makes it; a task may add keys of its own."""
Measure = Callable[["Bench", str], list[Row]]

OPTION = "--tasks"
MARK = ":"
"""Between a task and its argument."""


class LeftOut(Exception):  # noqa: N818  it is no error: the others are measured
    """A task cannot judge this subject; the text says why."""


def _no_settings(bench: "Bench", argument: str) -> Any:
    return None


def _no_check(bench: "Bench", argument: str) -> None:
    pass


def _as_it_is(argument: str) -> list[str]:
    return [argument]


@dataclass(frozen=True)
class Task:
    """Something that predictors are asked to do.

    Attributes:
        name: as registered; without ``:``.
        label: for people.
        measure: the rows of ``bench.subjects``.
        argument: what stands after the name, for messages: ``"SET"``; empty where nothing does.
        example: an argument, for messages: ``"permuted"``.
        default: the argument where none is given; None where one must be.
        kinds: the labels that it can be asked about.
        is_together: whether it needs all subjects at once, because they meet each other.
        needs_teacher: whether it means nothing without a teacher beside.
        takes_metrics: whether ``bench.metrics`` decides what is measured.
        metrics: how the names begin of those that it measures in any case, and that others measure
            where they are asked for, or not at all. A grid asks no other task for them, and checks
            names of metrics by them, unless it has a task of which nothing is known.
        check: refuses an argument before anything is measured. Of the teacher it may ask the space
            alone, since a grid checks its tasks before it builds one; likewise ``settings``.
        expand: an argument into several, each of which is measured, and kept, by itself: a range of
            radii for example.
        settings: plain data that the rows follow from beside the argument: a digest of a file, the
            machine where seconds are measured. What is kept is measured anew where it changes.
        version: of what it does; a higher one measures anew what is kept.
    """

    name: str
    label: str
    measure: Measure
    argument: str = ""
    example: str = ""
    default: str | None = None
    kinds: tuple[LabelKind, ...] = ("classification", "regression")
    is_together: bool = False
    needs_teacher: bool = False
    takes_metrics: bool = False
    metrics: tuple[str, ...] = ()
    check: Callable[["Bench", str], None] = _no_check
    expand: Callable[[str], list[str]] = _as_it_is
    settings: Callable[["Bench", str], Any] = _no_settings
    version: int = 1


TASKS: Registry[Task] = Registry("task", "gped_nas.api.tasks", Task)


def add_task(name: str, label: str, **settings: Any) -> Callable[[Measure], Measure]:
    """Register the decorated function as a task.

    Args:
        name: without ``:`` and ``,``.
        label: for people.
        settings: other attributes of ``Task``.

    Raises:
        RegistryError: the name holds one of these marks, or is taken.
    """
    if not name or set(":,") & set(name):
        raise RegistryError(f"task '{name}': expected a name without ':' and ','")

    def add(measure: Measure) -> Measure:
        TASKS.register(name)(Task(name, label, measure, **settings))
        return measure

    return add


@dataclass(frozen=True)
class Asked:
    """A task that somebody asks for.

    Attributes:
        task: itself.
        argument: what stands after its name.
    """

    task: Task
    argument: str = ""

    @property
    def text(self) -> str:
        """As it is asked for, and as rows have it: ``ood:permuted``."""
        return f"{self.task.name}{MARK}{self.argument}" if self.argument else self.task.name


def parse_tasks(texts: Sequence[str]) -> list[Asked]:
    """The tasks that are asked for, each once, in order.

    Args:
        texts: ``"misclassification"``, ``"ood:permuted"``, or several of them apart by commas.

    Raises:
        ConfigError: none, or an argument that is missing or not wanted.
        RegistryError: an unknown name.
    """
    asked: dict[str, Asked] = {}
    for text in split(texts):
        name, mark, argument = text.partition(MARK)
        task = TASKS.find(name.strip(), OPTION)
        for each in _arguments(task, argument.strip(), bool(mark)):
            parsed = Asked(task, each)
            asked[parsed.text] = parsed
    if not asked:
        raise ConfigError(f"{OPTION}: found none, expected some of: {', '.join(TASKS)}")
    return list(asked.values())


def split(texts: Iterable[str]) -> list[str]:
    """Texts that are apart by commas, each by itself."""
    parts: list[str] = []
    for text in texts:
        parts += [part.strip() for part in text.split(",") if part.strip()]
    return parts


def _arguments(task: Task, argument: str, has_mark: bool) -> list[str]:
    """What one text asks a task with, once or several times."""
    if not task.argument:
        if has_mark:
            raise ConfigError(
                f"{OPTION}: found '{task.name}{MARK}{argument}', but task '{task.name}' takes no "
                f"argument; write {task.name}"
            )
        return [""]

    if not argument and task.default is None:
        advice = f"; write {task.name}{MARK}{task.example}, for example" if task.example else ""
        raise ConfigError(
            f"{OPTION}: found '{task.name}', expected {task.name}{MARK}{task.argument}{advice}"
        )
    return task.expand(argument or task.default or "")
