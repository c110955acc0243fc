"""YAML to mapping to frozen model, strictly; the only module that knows YAML.

Unknown keys, wrong types, duplicate keys, aliases and oversized files are errors that name the
file, the key and the nearest valid one. Nothing in a file is ever executed or expanded.
"""

import re
import typing
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from gped_nas.errors import ConfigError, EnvironmentProblem, nearest
from gped_nas.spelling import NEW_NAMES

_MAX_BYTES = 256 * 2**10
_MAX_DEPTH = 32
_MAX_DIGITS = 400
"""Characters of an integer: the largest float has 309 digits, and Python prints 4,300 at most."""
_KEY_PART = re.compile(r"""(?P<quoted>"[^"]*"|'[^']*')|(?P<plain>[^.]*)""")
"""One part of a dotted key, in quotes or up to the next dot."""
_SURROGATE = re.compile("[\ud800-\udfff]")
# What PyYAML's constructors raise for a scalar that does not fit its tag: 2001-99-99, `!!int ''`,
# `!!bool x`.
_BAD_SCALAR = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


class Config(BaseModel):
    """Base of everything read from a file: frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, data: Any) -> Any:
        """Settings under the names of today; a plug-in keeps a setting that it calls so itself."""
        if not isinstance(data, dict):
            return data
        settings = dict(data)

        for old, new in NEW_NAMES.items():
            is_renamed = new in cls.model_fields and old not in cls.model_fields
            if old not in settings or not is_renamed:
                continue
            if new in settings:
                raise ValueError(f"{old}: found beside {new}, its new name; keep {new} alone")
            settings[new] = settings.pop(old)

        return settings


M = TypeVar("M", bound=Config)


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys, aliases and deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases are not allowed; write the value out", event.start_mark)

        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _refusal(f"nested deeper than {_MAX_DEPTH} levels", event.start_mark)

        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _refusal("expected a mapping", node.start_mark)

        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refusal("a key must be a plain name", key_node.start_mark)
            if key_node.value in seen:
                raise _refusal(f"the key '{key_node.value}' appears twice", key_node.start_mark)
            seen.add(str(key_node.value))

        return super().construct_mapping(node, deep=deep)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and _SURROGATE.search(value):
            # No file, page or database could hold it.
            raise _refusal("found half a surrogate pair, which is no character", node.start_mark)
        return value

    def construct_yaml_int(self, node: Any) -> int:
        text = str(self.construct_scalar(node))
        if len(text) > _MAX_DIGITS:
            raise _refusal(
                f"found an integer of {len(text)} characters, expected at most {_MAX_DIGITS}",
                node.start_mark,
            )

        digits = text.lstrip("+-").replace("_", "")
        if ":" in digits:
            raise _refusal(_sexagesimal(text), node.start_mark)
        if digits[0] == "0" and digits[1:].isdecimal():
            raise _refusal(
                f"found {text[:50]}, which YAML reads in base 8; write it without its first zero, "
                "or in quotes if it is a name",
                node.start_mark,
            )
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: Any) -> float:
        text = str(self.construct_scalar(node))
        if ":" in text:
            raise _refusal(_sexagesimal(text), node.start_mark)
        return super().construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _sexagesimal(text: str) -> str:
    return (
        f"found {text[:60]}, which YAML reads in base 60; write the number out, or in quotes if "
        "it is a name"
    )


def _refusal(problem: str, mark: Any) -> Exception:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def load_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping a YAML text holds.

    Args:
        text: the YAML text.
        where: its file name, for messages.

    Raises:
        ConfigError: not YAML, not a mapping, a duplicate key, an alias, too large or too deep.
    """
    if len(text.encode(errors="replace")) > _MAX_BYTES:
        raise ConfigError(
            f"{where}: larger than {_MAX_BYTES} bytes; a search space is a short file"
        )

    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, RecursionError, *_BAD_SCALAR) as error:
        mark = getattr(error, "problem_mark", None)
        location = f"{where}:{mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{location}: not readable as YAML: {problem}") from None

    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(
            f"{where}: found {type(value).__name__}, expected a mapping of named settings"
        )
    return value


def find_yaml(name_or_path: str, shipped: Mapping[str, Path], what: str) -> Path:
    """The file of something given by path or by shipped name.

    Args:
        name_or_path: ``"digits_mlp"`` or a path.
        shipped: name to file of those that come with the package.
        what: it is, for messages: ``"space"``.

    Raises:
        ConfigError: neither; the message names the nearest shipped one.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    if name_or_path not in shipped:
        raise ConfigError(
            f"{name_or_path}: no such file and no shipped {what} of that "
            f"name{nearest(name_or_path, shipped)}"
        )
    return shipped[name_or_path]


def read_yaml(path: Path, what: str = "search space") -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: of the file.
        what: it holds, for messages.

    Raises:
        ConfigError: missing or not a valid file.
        EnvironmentProblem: it exists and cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"{path}: no such file; expected a YAML {what}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a UTF-8 text file; expected a YAML {what}") from None
    except OSError as error:
        raise EnvironmentProblem(f"{path}: cannot be read: {error.strerror}") from None
    return load_yaml(text, str(path))


def dump_yaml(value: Mapping[str, Any]) -> str:
    """The YAML text of plain data, keys in the order given."""
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=110)


def flow_yaml(value: Any) -> str:
    """The YAML text of plain data in one line: ``{name: npz, path: a.npz}``."""
    text = yaml.safe_dump(
        value, sort_keys=False, allow_unicode=True, default_flow_style=True, width=float("inf")
    )
    return text.removesuffix("\n").removesuffix("\n...")


def parse_value(text: str, where: str) -> Any:
    """The value of one ``--set key=value``, read as YAML reads it.

    Raises:
        ConfigError: the text is not a YAML value.
    """
    return load_yaml(f"value: {text}", where).get("value")


def split_key(key: str, where: str) -> list[str]:
    """The parts of a dotted key; one in quotes is a name that may hold dots.

    ``constraints."accuracy@apgd-0.1"`` is ``constraints`` and ``accuracy@apgd-0.1``.

    Raises:
        ConfigError: a quote that is not closed or has more beside it, or a name with ``@`` that is
            cut at its dot.
    """
    parts = []
    end = -1
    while end < len(key):
        match = _KEY_PART.match(key, end + 1)
        assert match is not None, "a part may be empty"
        quoted, plain, end = match["quoted"], match["plain"], match.end()
        is_last = end == len(key)

        if plain is not None and set("\"'") & set(plain) or not is_last and key[end] != ".":
            raise ConfigError(
                f"{where}: expected quotes around a whole part, for example "
                'constraints."accuracy@apgd-0.1"'
            )
        if plain is not None and "@" in plain and not is_last:
            name = key[match.start() :]
            raise ConfigError(
                f"{where}: found a dot inside of '{name}', expected a name with dots in quotes: "
                f'"{name}"'
            )

        parts.append(plain if quoted is None else quoted[1:-1])
    return parts


def parse(model: type[M], mapping: object, where: str) -> M:
    """Build a frozen configuration from plain data.

    Args:
        model: the configuration class.
        mapping: what the file holds at this place.
        where: file and key of this place, for messages.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, an impossible value; names the nearest
            valid key.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}: found {_show(mapping)}, expected a mapping of settings")
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as error:
        messages = [_message(model, mistake, where) for mistake in error.errors()]
        raise ConfigError("\n".join(messages)) from None


def _message(model: type[BaseModel], mistake: Any, where: str) -> str:
    """One mistake that pydantic reports, in our words."""
    kind = mistake["type"]
    value = mistake["input"]
    keys = [str(part) for part in mistake["loc"]]
    location = f"{where}: {'.'.join(keys)}" if keys else where

    if kind == "extra_forbidden":
        fields = _fields_at(model, mistake["loc"][:-1])
        return f"{location}: unknown key{nearest(keys[-1], fields)}"
    if kind == "missing":
        return f"{location}: missing; give it a value"

    is_number_kind = kind.startswith(("float_type", "int_type", "int_from_float"))
    if is_number_kind and isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text: a number needs its point
        hint = "; YAML takes it for text, write 1.0e-3 (or 1.0e+6)" if is_number_text(value) else ""
        return f"{location}: found the text {_show(value)}, expected a number{hint}"

    choices = re.findall(r"'([^']*)'", mistake.get("ctx", {}).get("expected", ""))
    if kind == "literal_error" and choices:  # of numbers there is no nearest one
        return f"{location}: found {_show(value)}{nearest(value, choices)}"
    if kind == "tuple_type":
        return f"{location}: found {_show(value)}, expected a list"
    if kind == "too_short":
        least = mistake["ctx"]["min_length"]
        return f"{location}: found {_show(value)}, expected at least {least} entry"

    message = mistake["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = message.rstrip(".")
    if kind == "value_error":
        return f"{location}: {message}"
    return f"{location}: found {_show(value)}, expected {message}"


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Field names of the nested model that ``loc`` leads to; none where it leads to no model."""
    current: Any = model

    for part in loc:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        if part in current.model_fields:
            current = current.model_fields[part].annotation
        # `X | None` and `list[X]` hold the model inside
        for inner in typing.get_args(current):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                current = inner

    is_model = isinstance(current, type) and issubclass(current, BaseModel)
    return list(current.model_fields) if is_model else []


def is_number_text(text: str) -> bool:
    """Whether Python reads a text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _show(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        text = f"a {type(value).__name__} of very many digits"
    is_short = len(text) <= 60
    return text if is_short else text[:57] + "..."
