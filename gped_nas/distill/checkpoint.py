"""A student in training on disk. Version 1 of the format:

One safetensors file holds one student, so that it is there whole or not at all. It is written to a
temporary name, flushed and renamed.

    params/<name>           parameters as they are trained: in the frame, centered, in their form
    memory/<part>/<name>    what the optimizer remembers: first, second, momentum
    average/<name>          running average; none before pruning or where the recipe keeps none
    constants/<name>        what its form keeps beside them; none where it is trained as stored
    centers/<i>             what is taken off the units of hidden layer i, (units,)
    frame/mean              principal components, (D,) and (D, J); none without components
    frame/basis
    position/<name>         where the shared batch stream goes on, see ``feed.Position``
    losses                  (n, 2) float64: a step and its loss; not every one is finite
    rungs                   (n, 2) float64: a rung's step and the loss on validation

Parameters and what belongs to them are float32; ``<name>`` is the family's name of a parameter. The
file's metadata has one entry, ``trainee``: canonical JSON of

    format       "gped-nas trainee"
    version      1
    course       what the student is trained on, see ``Course.identity``
    genotype     what is trained
    names        of the parameters, in the family's order
    lr_factor, seed, precision, step, num_dead, has_left    see ``Trainee``
    ridge        likewise, where it is not zero
    sha256       of all of this but itself, and of each tensor's name, dtype, shape and bytes

A file is read only if its digest is right and it belongs to the very course that it is asked for:
same recipe, root seed and data.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor

from gped_nas.config import Config, parse
from gped_nas.distill.components import Components
from gped_nas.distill.course import Course
from gped_nas.distill.trainee import Points, Trainee
from gped_nas.errors import GpedError, StudyError
from gped_nas.io import canonical_json, open_plain, write_bytes
from gped_nas.models.base import Genotype, Params
from gped_nas.models.storage import parse_tensors

FORMAT, VERSION = "gped-nas trainee", 1
_ENTRY = "trainee"
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, little-endian."""

_Tensors = Mapping[str, Tensor]


class _State(Config):
    """What the metadata says."""

    format: str
    version: int
    course: dict[str, Any]
    genotype: dict[str, Any]
    names: Annotated[tuple[str, ...], Field(strict=False)]
    lr_factor: float = Field(gt=0)
    seed: int
    precision: str
    step: int = Field(ge=0)
    num_dead: int = Field(ge=0)
    has_left: bool
    ridge: float = Field(default=0.0, ge=0)


def save_trainee(path: Path, student: Trainee, course: Course) -> None:
    """Write a student in training to one file, whole or not at all.

    Args:
        path: the file; its folder is there.
        student: as ``train`` or ``begin`` gave it.
        course: what it is trained on.

    Raises:
        EnvironmentProblem: the file cannot be written.
    """
    state = {
        "format": FORMAT,
        "version": VERSION,
        "course": course.identity,
        "genotype": student.genotype.to_json(),
        "names": list(student.params),
        "lr_factor": student.lr_factor,
        "seed": student.seed,
        "precision": student.precision,
        "step": student.step,
        "num_dead": student.num_dead,
        "has_left": student.has_left,
    }
    if student.ridge:  # it came later
        state["ridge"] = student.ridge
    tensors = _pack(student)
    text = canonical_json({**state, "sha256": _digest(state, tensors)})

    # one entry: safetensors would write several in any order
    write_bytes(path, safetensors.torch.save(tensors, {_ENTRY: text}))


def load_trainee(path: Path, course: Course) -> Trainee:
    """The student in training that a file holds, on the CPU.

    Raises:
        StudyError: the file is missing, damaged, of another version or of another course.
    """
    tensors, written = _read(path)
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if written.get(key) != expected:
            raise _refusal(path, f"found {key} {written.get(key)!r}, expected {expected!r}")

    digest = written.pop("sha256", None)
    try:
        is_whole = digest == _digest(written, tensors)
    except (ValueError, TypeError):  # not a number, or a type of number that numpy has not
        is_whole = False
    if not is_whole:
        raise _refusal(path, "its digest does not fit what it holds: it is damaged")

    try:
        state = parse(_State, written, f"{path}: {_ENTRY}")
        genotype = Genotype.from_json(state.genotype)
    except (ValueError, TypeError, KeyError, GpedError) as error:
        raise _refusal(path, f"its metadata cannot be understood ({error})") from None
    _check_course(path, state.course, course)

    try:
        return _unpack(tensors, state, genotype)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _refusal(path, f"its tensors do not fit its state ({error})") from None


def _refusal(path: Path, problem: str) -> StudyError:
    return StudyError(f"{path}: {problem}; delete it to train the student from the beginning")


def _check_course(path: Path, identity: Mapping[str, Any], course: Course) -> None:
    """Refuse a file whose course is another one.

    Raises:
        StudyError: it names the first key that differs.
    """
    if identity == course.identity:
        return

    stored = _flatten(identity)
    expected = _flatten(course.identity)
    keys = sorted({*stored, *expected})
    key = next(key for key in keys if stored.get(key) != expected.get(key))
    raise _refusal(
        path,
        "the student was trained on another course: "
        f"found {key} {stored.get(key, 'left out')}, "
        f"expected {expected.get(key, 'left out')}",
    )


def _flatten(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's settings beside the other keys, by their dotted names."""
    settings = identity.get("recipe")
    flat = {key: value for key, value in identity.items() if key != "recipe"}
    if isinstance(settings, Mapping):
        flat |= {f"recipe.{key}": value for key, value in settings.items()}
    return flat


# ---------------------------------------------------------------------------------------------
# the file


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what its metadata says; nothing in a file of another kind."""
    if not path.exists():
        raise StudyError(f"{path}: no such file; expected a student in training")
    try:
        with open_plain(path) as file:
            data = file.read()
        tensors = parse_tensors(data, path)
        # safetensors.torch gives tensors alone, so that the header is read here
        stop = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
        metadata = json.loads(data[_LENGTH_BYTES:stop]).get("__metadata__") or {}
        written = json.loads(metadata.get(_ENTRY, "{}"))
    except (GpedError, ValueError, RecursionError) as error:
        raise _refusal(path, f"cannot be read as a safetensors file ({error})") from None

    return tensors, written if isinstance(written, dict) else {}


def _digest(state: Mapping[str, Any], tensors: _Tensors) -> str:
    digest = hashlib.sha256(canonical_json(state).encode())
    for name in sorted(tensors):
        array = tensors[name].contiguous().numpy()
        digest.update(f"{name}\n{array.dtype.str}{array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------
# the student


def _pack(student: Trainee) -> dict[str, Tensor]:
    """The tensors of a student's file, by the names that the module docstring lists."""
    tensors = _add_prefix("params", student.params)
    for part, params in student.memory.items():
        tensors |= _add_prefix(f"memory/{part}", params)
    tensors |= _add_prefix("average", student.average)

    centers = {str(i): center for i, center in enumerate(student.centers)}
    tensors |= _add_prefix("centers", centers)
    tensors |= _add_prefix("constants", student.constants)
    tensors |= _add_prefix("position", student.position)
    if student.frame is not None:
        frame = {"mean": student.frame.mean_D, "basis": student.frame.basis_DJ}
        tensors |= _add_prefix("frame", frame)

    tensors["losses"] = _to_table(student.losses)
    tensors["rungs"] = _to_table(student.rungs)

    # copies: a safetensors file holds no tensor that shares its numbers with another
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _add_prefix(prefix: str, tensors: _Tensors) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def _to_table(points: Points) -> Tensor:
    return torch.tensor(points, dtype=torch.float64).reshape(-1, 2)


def _unpack(tensors: _Tensors, state: _State, genotype: Genotype) -> Trainee:
    """The student whose tensors ``_pack`` listed.

    Raises:
        KeyError: a tensor is missing.
        ValueError: one has another shape than its parameter.
    """
    frame = _select("frame/", tensors)
    centers = _select("centers/", tensors)
    params = _in_order("params/", tensors, state.names)

    memory: dict[str, Params] = {}
    for name in _select("memory/", tensors):
        part = name.partition("/")[0]
        if part not in memory:
            memory[part] = _in_order(f"memory/{part}/", tensors, state.names)

    average: Params = {}
    if _select("average/", tensors):
        average = _in_order("average/", tensors, state.names)

    for values in (*memory.values(), average):
        for name, value in values.items():
            if value.shape != params[name].shape:
                raise ValueError(f"{name}: found shape {tuple(value.shape)} beside its parameter")

    return Trainee(
        genotype,
        state.lr_factor,
        params,
        memory=memory,
        average=average,
        centers=tuple(centers[str(i)] for i in range(len(centers))),
        constants=_select("constants/", tensors),
        seed=state.seed,
        precision=state.precision,
        frame=Components(frame["mean"], frame["basis"]) if frame else None,
        step=state.step,
        position=_select("position/", tensors),
        num_dead=state.num_dead,
        losses=_to_points(tensors["losses"]),
        rungs=_to_points(tensors["rungs"]),
        has_left=state.has_left,
        ridge=state.ridge,
    )


def _select(prefix: str, tensors: _Tensors) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _in_order(prefix: str, tensors: _Tensors, names: Sequence[str]) -> Params:
    return {name: tensors[prefix + name] for name in names}


def _to_points(table: Tensor) -> Points:
    return tuple((int(step), loss) for step, loss in table.tolist())
