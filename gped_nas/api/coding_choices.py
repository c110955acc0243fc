"""Which codecs stand on the front: names, sizes and settings, as somebody asked for them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gped_nas.config import parse_value
from gped_nas.errors import ConfigError, nearest
from gped_nas.io import canonical_json
from gped_nas.posterior.base import ChainConfig, MethodConfig, parse_method
from gped_nas.posterior.codecs.base import (
    CodecConfig,
    codecs,
    known_count,
    num_chains,
)

OPTION = "--codecs"
_NOT_SETTINGS = ("name", "of")
_OUTSIDE = r"(?![^{]*\})"
"""Behind a mark that is not within braces."""
DEFAULT_SIZES = (4, 8, 16, 32)
"""Networks whose bytes a codec may take, where none are asked for."""
ASKED_ALONE = ("apd",)
"""Codecs that take hours, so that nobody pays for them unasked."""


@dataclass(frozen=True)
class Knob:
    """The setting that makes a codec larger.

    Attributes:
        setting: its name.
        beside: networks' worth of bytes that a chain takes beside it, such as a mean.
        is_of_chain: whether it counts for each chain that is read, and not for all together.
    """

    setting: str
    beside: int = 0
    is_of_chain: bool = True

    def value(self, networks: int, num_chains: int) -> int:
        """The largest value that takes at most so many networks' bytes; below 1 of none."""
        if not self.is_of_chain:
            return networks
        return networks // num_chains - self.beside


KNOBS: Mapping[str, Knob] = {
    "subset": Knob("num_samples", is_of_chain=False),
    # a mean, and a standard deviation a parameter
    "low_rank": Knob("rank", beside=2),
    "flow": Knob("components", beside=2),
    "gan": Knob("components", beside=2),
}
"""Of the codecs that have one; all others have the bytes that they have."""
VARIANTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "quantized": ({"bits": 8}, {"bits": 4}, {"bits": 4, "around": "mean"})
}
"""Settings with which codecs without a knob are asked, where none are given."""


@dataclass(frozen=True)
class Choice:
    """A codec with some of its settings.

    Attributes:
        codec: its name.
        settings: those that are not left at their defaults.
        of: the codec whose samples it reads; None where it reads the teacher's.
    """

    codec: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    of: "Choice | None" = None

    def __str__(self) -> str:
        parts = [f"{key}={_text(value)}" for key, value in self.settings.items()]
        inner = [] if self.of is None else [f"of {self.of}"]
        return " ".join([self.codec, *parts, *inner])

    @property
    def title(self) -> str:
        """The codec without settings: ``quantized of subset``."""
        return self.codec if self.of is None else f"{self.codec} of {self.of.title}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def split_choices(text: str) -> list[str]:
    """``"subset,apd:online={buffer: 20, updates: 100}"`` as a text a codec."""
    parts = [part.strip() for part in re.split(f",{_OUTSIDE}", text)]
    return [part for part in parts if part]


def parse_choice(text: str, option: str = OPTION) -> Choice:
    """The codec of a text: ``subset``, or ``quantized:bits=4 of subset:num_samples=20``.

    Args:
        text: what was given.
        option: with which option, for messages.

    Raises:
        ConfigError: it is no codec, or a setting has no value.
    """
    outer, _, inner = text.partition(" of ")
    name, *parts = [part.strip() for part in re.split(f":{_OUTSIDE}", outer)]
    if name not in codecs():
        raise ConfigError(
            f"{option}: found '{name}', which keeps no posterior in few bytes"
            f"{nearest(name, codecs())}"
        )

    settings = {}
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key or key in _NOT_SETTINGS:
            raise ConfigError(
                f"{option}: found '{text}', expected CODEC:KEY=VALUE, for example "
                "subset:num_samples=8, or quantized:bits=8 of subset:num_samples=8"
            )
        settings[key] = parse_value(value, f"{option} {name}:{key}")
    return Choice(name, settings, parse_choice(inner, option) if inner else None)


def check_sizes(sizes: Sequence[int]) -> None:
    """Refuse sizes that are none.

    Raises:
        ConfigError: one is below 1, or not whole.
    """
    for size in sizes:
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"--sizes: found {size!r}, expected whole numbers of networks from 1")


def settings_of(choice: Choice, method: MethodConfig, option: str = OPTION) -> CodecConfig:
    """The settings of a codec that reads a method's samples.

    Args:
        choice: the codec.
        method: whose samples it reads, or the codec that it reads.
        option: with which option it was asked for, for messages.

    Raises:
        ConfigError: one is invalid, or does not go with so many samples.
        RegistryError: an unknown codec.
    """
    of = method if choice.of is None else settings_of(choice.of, method, option)
    plain = {"name": choice.codec, **choice.settings, "of": of.model_dump(mode="json")}
    settings = parse_method(plain, f"{option} {choice}")
    assert isinstance(settings, CodecConfig)
    return settings


def choices_of(texts: Sequence[str], sizes: Sequence[int], method: ChainConfig) -> list[Choice]:
    """The codecs that are asked for, each at each size that it can have.

    A codec with settings of its own is asked as it is.

    Args:
        texts: see ``parse_choice``; all codecs that take no hours by default.
        sizes: networks whose bytes they may take; ``DEFAULT_SIZES`` by default.
        method: whose samples they read.

    Raises as ``parse_choice``, ``check_sizes`` and ``settings_of``.
    """
    check_sizes(sizes)
    asked = [parse_choice(text) for text in texts]
    if not asked:
        asked = [Choice(name) for name in codecs() if name not in ASKED_ALONE]

    choices: list[Choice] = []
    for choice in asked:
        choices += _at_sizes(choice, sizes, method)
    for choice in choices:
        settings_of(choice, method)
    return choices


def _at_sizes(choice: Choice, sizes: Sequence[int], method: MethodConfig) -> list[Choice]:
    """A codec at each size, and of each size of the codec that it reads."""
    if choice.of is None:
        return _of_samples(choice, sizes, method)
    choices: list[Choice] = []
    for inner in _at_sizes(choice.of, sizes, method):
        outer = replace(choice, of=inner)
        choices += _of_samples(outer, sizes, settings_of(inner, method))
    return choices


def _of_samples(choice: Choice, sizes: Sequence[int], method: MethodConfig) -> list[Choice]:
    """A codec of a method's samples at each size."""
    knob = KNOBS.get(choice.codec)
    if knob is None or knob.setting in choice.settings:
        variants = VARIANTS.get(choice.codec, ({},)) if not choice.settings else ({},)
        return [replace(choice, settings={**choice.settings, **each}) for each in variants]

    chains, num_samples = num_chains(method), known_count(method)
    assert num_samples is not None, "of a method with chains, and of a codec of it"
    choices = []
    for size in sizes or DEFAULT_SIZES:
        value = knob.value(size, chains)
        is_possible = value >= 1 and chains <= size <= num_samples
        if is_possible or sizes:  # what somebody asks for is tried, and refused with a reason
            choices.append(replace(choice, settings={**choice.settings, knob.setting: value}))
    return choices
