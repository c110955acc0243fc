"""Which codecs stand on the front: names, sizes and settings, as somebody asked for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gped_nas.config import parse_value
from gped_nas.errors import ConfigError
from gped_nas.io import canonical_json
from gped_nas.posterior.base import METHODS
from gped_nas.posterior.codecs.base import codec_of, codecs

OPTION = "--codecs"
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
    """

    codec: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{key}={_text(value)}" for key, value in self.settings.items()]
        return " ".join([self.codec, *parts])


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def parse_choice(text: str, option: str = OPTION) -> Choice:
    """The codec of a text: ``subset``, or ``quantized:bits=4:around=mean``.

    Args:
        text: what was given.
        option: with which option, for messages.

    Raises:
        ConfigError: it is no codec, or a setting has no value.
        RegistryError: an unknown method.
    """
    name, *parts = [part.strip() for part in text.split(":")]
    METHODS.find(name, option)
    if codec_of(name) is None:
        raise ConfigError(
            f"{option}: found '{name}', which keeps no posterior in few bytes, expected some of "
            f"{', '.join(codecs())}"
        )

    settings = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"{option}: found '{text}', expected CODEC:KEY=VALUE, for example "
                "subset:num_samples=8"
            )
        settings[key.strip()] = parse_value(value, f"{option} {name}:{key}")
    return Choice(name, settings)


def check_sizes(sizes: Sequence[int]) -> None:
    """Refuse sizes that are none.

    Raises:
        ConfigError: one is below 1, or not whole.
    """
    for size in sizes:
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"--sizes: found {size!r}, expected whole numbers of networks from 1")


def choices_of(
    texts: Sequence[str], sizes: Sequence[int], *, num_samples: int, num_chains: int
) -> list[Choice]:
    """The codecs that are asked for, each at each size that it can have.

    A codec with settings of its own is asked as it is.

    Args:
        texts: see ``parse_choice``; all codecs that take no hours by default.
        sizes: networks whose bytes they may take; ``DEFAULT_SIZES`` by default.
        num_samples: samples that they read, all chains together.
        num_chains: chains that they read.

    Raises as ``parse_choice`` and ``check_sizes``.
    """
    check_sizes(sizes)
    asked = [parse_choice(text) for text in texts]
    if not asked:
        asked = [Choice(name) for name in codecs() if name not in ASKED_ALONE]

    choices: list[Choice] = []
    for choice in asked:
        knob = KNOBS.get(choice.codec)
        if knob is None or knob.setting in choice.settings:
            variants = VARIANTS.get(choice.codec, ({},)) if not choice.settings else ({},)
            choices += [Choice(choice.codec, {**choice.settings, **each}) for each in variants]
            continue
        for size in sizes or DEFAULT_SIZES:
            value = knob.value(size, num_chains)
            is_possible = 1 <= value and size <= num_samples
            if is_possible or sizes:  # what somebody asks for is tried, and refused with a reason
                choices.append(Choice(choice.codec, {**choice.settings, knob.setting: value}))
    return choices
