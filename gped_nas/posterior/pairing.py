"""Which tensor of somebody else's file is which parameter of the teacher.

Nothing is guessed. In this order:

1. a map of names, where the user gives one (``teacher.method.names``);
2. the teacher's own names;
3. shapes. Tensors of one shape could be exchanged: they are paired in the order of the numbers in
   their names (``0.weight``, ``2.weight``; ``fc1``, ``fc2``), and refused where no number tells
   them apart (``fc_in``, ``fc_hidden``), since their alphabet says nothing of the network.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from gped_nas.errors import DataError
from gped_nas.models.base import Params, Shapes, shapes_of

_KINDS = {"weight": 0, "gain": 1, "bias": 2}
"""What a layer's tensors are called, in the order in which the teacher has them."""
_MOST_SHOWN = 8


def pair(params: Params, shapes: Shapes, names: Mapping[str, str], path: Path) -> Params:
    """Parameters in the teacher's order and under its names.

    Args:
        params: those of the file, by the file's names.
        shapes: the teacher's.
        names: the teacher's names, or its layers', to the file's; empty to go by names or shapes.
        path: the file, for messages.

    Raises:
        DataError: shapes do not fit the teacher, or it cannot be told which tensor is which.
    """
    stored = shapes_of(params)
    if names:
        sources = _by_map(stored, shapes, names, path)
    elif stored == dict(shapes):
        sources = {name: name for name in shapes}
    else:
        sources = _by_shape(stored, shapes, path)
    return {name: params[source] for name, source in sources.items()}


def _by_map(stored: Shapes, shapes: Shapes, names: Mapping[str, str], path: Path) -> dict[str, str]:
    known = {*shapes, *map(_layer, shapes)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"{path}: teacher.method.names: found {', '.join(unknown)}, expected parameters or "
            f"layers of the teacher: {_listed(_layers(shapes))}"
        )

    sources = {name: _mapped(name, names) for name in shapes}
    missing = [source for source in sources.values() if source not in stored]
    if missing:
        raise DataError(
            f"{path}: teacher.method.names: lead to {_listed(missing)}, but the file holds "
            f"{_listed(stored)}; name the tensor of each parameter of the teacher"
        )
    if set(sources.values()) != set(stored) or len(sources) != len(stored):
        unused = [name for name in stored if name not in sources.values()]
        raise DataError(
            f"{path}: teacher.method.names: found {len(sources)} parameters for {len(stored)} "
            f"tensors, expected one each; the map leaves out {_listed(unused) or 'none'}"
        )

    for name, source in sources.items():
        if tuple(stored[source]) != tuple(shapes[name]):
            raise DataError(
                f"{path}: teacher.method.names: {source} has shape {tuple(stored[source])}, "
                f"expected {tuple(shapes[name])}, that of {name}"
            )
    return sources


def _mapped(name: str, names: Mapping[str, str]) -> str:
    """The file's name of a parameter: its own entry, that of its layer, or the same name."""
    layer = _layer(name)
    if name in names:
        return names[name]
    if layer in names:
        return names[layer] + name.removeprefix(layer)
    return name


def _by_shape(stored: Shapes, shapes: Shapes, path: Path) -> dict[str, str]:
    if sorted(map(tuple, stored.values())) != sorted(map(tuple, shapes.values())):
        raise DataError(
            f"{path}: found tensors of shapes {_describe(stored)}, expected "
            f"{_describe(shapes)}; "
            "set teacher.family and teacher.genotype to the network these weights are of"
        )

    sources: dict[str, str] = {}
    for shape in dict.fromkeys(map(tuple, shapes.values())):
        wanted = [name for name in shapes if tuple(shapes[name]) == shape]
        available = [name for name in stored if tuple(stored[name]) == shape]
        available.sort(key=_order)
        _check_order(available, wanted, shape, shapes, stored, path)
        sources |= dict(zip(wanted, available, strict=True))
    return {name: sources[name] for name in shapes}


def _check_order(
    available: Sequence[str],
    wanted: Sequence[str],
    shape: Sequence[int],
    shapes: Shapes,
    stored: Shapes,
    path: Path,
) -> None:
    """Refuse tensors of one shape whose names do not say which is which."""
    for first, second in pairwise(available):
        if not _is_told_apart(first, second):
            raise DataError(
                f"{path}: {first} and {second} have one shape, {tuple(shape)}, and nothing says "
                f"which comes first; {_ask_for_map(shapes, stored)}"
            )
    for source, name in zip(available, wanted, strict=True):
        is_known = _kind(source) in _KINDS
        if is_known and (_kind(source) == "bias") != (_kind(name) == "bias"):
            raise DataError(
                f"{path}: {source} would be {name} by its shape, {tuple(shape)}, but only one of "
                f"them is a bias; {_ask_for_map(shapes, stored)}"
            )


def _ask_for_map(shapes: Shapes, stored: Shapes) -> str:
    theirs = _layers(stored)
    entries = ", ".join(f"{layer}: ..." for layer in _layers(shapes)[:_MOST_SHOWN])
    return f"set teacher.method.names to {{{entries}}} with one of {_listed(theirs)} for each '...'"


def _order(name: str) -> list[tuple[int, str]]:
    """The sort key by which numbers go by value, and a layer's weights before its biases."""
    kind = _kind(name)
    return [*_parts(_layer(name)), (_KINDS.get(kind, len(_KINDS)), kind)]


def _is_told_apart(first: str, second: str) -> bool:
    """Whether the first difference of two names is a number, or what a layer's tensors are."""
    if _layer(first) == _layer(second):
        return {_kind(first), _kind(second)} <= _KINDS.keys()

    for part, other in zip(_parts(_layer(first)), _parts(_layer(second)), strict=False):
        if part != other:
            return part[1] == other[1] and min(part[0], other[0]) >= 0
    return False


def _parts(layer: str) -> list[tuple[int, str]]:
    """Each part of a layer's name as its trailing number, -1 without one, and its text."""
    parts = []
    for part in layer.split("."):
        text = part.rstrip("0123456789")
        digits = part.removeprefix(text)
        parts.append((int(digits) if 0 < len(digits) < 10 else -1, text))
    return parts


def _kind(name: str) -> str:
    return name.removeprefix(_layer(name)).removeprefix(".")


def _layer(name: str) -> str:
    """What a parameter's name begins with: ``layers.0`` of ``layers.0.weight``."""
    return name.rpartition(".")[0] or name


def _layers(shapes: Shapes) -> list[str]:
    return list(dict.fromkeys(map(_layer, shapes)))


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = ", ..." if len(listed) > _MOST_SHOWN else ""
    return ", ".join(listed[:_MOST_SHOWN]) + more


def _describe(shapes: Shapes) -> str:
    return _listed([f"{name} {tuple(shape)}" for name, shape in shapes.items()])
