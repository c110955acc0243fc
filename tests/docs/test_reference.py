"""The reference pages name every verb, option, variable, setting, default and genotype value."""

import json
import re
from collections.abc import Iterator
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any

import pytest
import typer

import gped_nas as gn
from gped_nas import errors
from gped_nas.cli.program import app
from gped_nas.config import Config
from gped_nas.data.diabetes import DiabetesSettings
from gped_nas.data.dials import DataConfig, ImbalanceConfig
from gped_nas.data.digits import DigitsSettings
from gped_nas.data.emnist import EmnistSettings
from gped_nas.data.images import ImagesSettings
from gped_nas.data.npy import NpySettings
from gped_nas.data.omniglot import OmniglotSettings
from gped_nas.data.own import NpzSettings
from gped_nas.data.synthetic import LinearGaussianSettings
from gped_nas.data.table import CsvSettings, ParquetSettings
from gped_nas.data.views import POLICIES, ViewSettings
from gped_nas.data.vision import VisionSettings
from gped_nas.distill.recipe import Recipe
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.certify.box_file import BoxSettings
from gped_nas.evaluate.conditions import CONDITIONS, ConditionValue
from gped_nas.evaluate.cost_matrix import CostFile, DearConfig
from gped_nas.evaluate.latency import LatencyConfig
from gped_nas.evaluate.outside import OutsideSettings
from gped_nas.evaluate.scores import SCORES
from gped_nas.models.base import COMMON_VALUES, FAMILIES
from gped_nas.models.labels import COSTS
from gped_nas.posterior.base import METHODS
from gped_nas.posterior.codecs.apd import OnlineSettings
from gped_nas.posterior.likelihoods import LIKELIHOODS
from gped_nas.posterior.priors import PRIORS
from gped_nas.search import space, space_file, teacher_file
from gped_nas.suite import grid, grid_file
from gped_nas.suite.shipped import shipped_grids
from gped_nas.targets.base import TARGETS
from tests.docs.pages import PAGES
from tests.test_architecture import all_registries

COMMANDS = PAGES["docs/commands.md"].read_text()
SPACES = PAGES["docs/spaces.md"].read_text()
SETTINGS: dict[str, type[Config]] = {
    "space": space_file._SpaceFile,
    "teacher": teacher_file.TeacherFile,
    "teacher by predictions": teacher_file.GivenTeacherFile,
    "students": space_file._StudentsFile,
    "latency": LatencyConfig,
    "search": space.SearchConfig,
    "baseline": space.BaselineConfig,
    "twins": space.TwinsConfig,
    "finalists": space.FinalistsConfig,
    "stream": space.StreamConfig,
    "views": ViewSettings,
    "data": DataConfig,
    "imbalance": ImbalanceConfig,
    "box": BoxSettings,
    "cost matrix": CostFile,
    "dear": DearConfig,
    "ood": OutsideSettings,
    "recipe": Recipe,
    "digits": DigitsSettings,
    "diabetes": DiabetesSettings,
    "npz": NpzSettings,
    "npy": NpySettings,
    "csv": CsvSettings,
    "parquet": ParquetSettings,
    "images": ImagesSettings,
    "linear_gaussian": LinearGaussianSettings,
    "mnist": VisionSettings,
    "emnist": EmnistSettings,
    "omniglot": OmniglotSettings,
    **{f"prior {name}": prior for name, prior in PRIORS.items()},
    **{f"likelihood {name}": likelihood for name, likelihood in LIKELIHOODS.items()},
    **{
        f"condition {name}": condition.settings
        for name, condition in CONDITIONS.items()
        if condition.settings not in (None, ConditionValue)
    },
    **{name: policy.settings for name, policy in POLICIES.items()},
    "apd online": OnlineSettings,
    **{name: method.config for name, method in METHODS.items()},
    **{
        name: type(target.settings)
        for name, target in TARGETS.items()
        if target.settings is not None
    },
}
NAMES = ("name", "policy")
"""Keys that say which settings these are."""


def _section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level = heading.split()[0]
    parts = re.split(rf"^(?=#{{1,{len(level)}}} )", text, flags=re.MULTILINE)
    (section,) = [part for part in parts if part.startswith(heading + "\n")]
    return section


def _verbs(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from _verbs(below, f"{words} {name}")
    if not hasattr(command, "commands"):
        yield words, command


VERBS = dict(_verbs(typer.main.get_command(app), "gped-search"))
EVERYWHERE = {"--quiet", "--verbose", "--log-format"}
"""Options that each verb takes, and that only the section about all verbs describes."""


def test_what_each_verb_takes_is_described_once() -> None:
    section = _section(COMMANDS, "## What all verbs share")
    assert {name for name in EVERYWHERE if f"`{name}`" not in section} == set()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_described_with_its_options_and_an_example(verb: str) -> None:
    section = _section(COMMANDS, f"## `{verb}`")
    options: set[str] = set()
    for parameter in VERBS[verb].params:
        options |= {name for name in parameter.opts if name.startswith("--")}
    described = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section))
    assert described == options - EVERYWHERE
    assert f"$ {verb}" in section


def test_no_verb_is_described_that_is_not_there() -> None:
    described = re.findall(r"^## `(.+)`$", COMMANDS, re.MULTILINE)
    assert described != []
    assert set(described) == set(VERBS)


def test_every_public_name_is_described_and_no_other() -> None:
    section = _section(PAGES["docs/python.md"].read_text(), "## Every name")
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(gn.__all__)


def test_every_environment_variable_is_described() -> None:
    read = {"NO_COLOR"}
    for path in PAGES["README.md"].parent.glob("gped_nas/**/*.py"):
        read |= set(re.findall(r"\b(?:GPED|OPTUNA)_[A-Z]+\b", path.read_text()))
    section = _section(COMMANDS, "## What all verbs share")
    assert {name for name in read if f"`{name}`" not in section} == set()


def test_every_exit_code_is_described() -> None:
    cells = re.findall(r"^\| ([\d, ]+) \|", COMMANDS, re.MULTILINE)
    codes = [int(code) for code in ",".join(cells).split(",")]
    signals = {128 + number for number in (SIGHUP, SIGINT, SIGTERM)}
    assert sorted(codes) == sorted({0, 1, *errors._EXIT_CODES.values(), *signals})


def _rows(cls: type[Config]) -> dict[str, str]:
    """Key to default, as the page writes them."""
    rows = {}
    for key, field in cls.model_fields.items():
        default = field.default
        if field.is_required():
            rows[key] = "required"
        elif default is None:
            rows[key] = "none"
        elif isinstance(default, Config):
            rows[key] = "see there"
        else:
            text = default if isinstance(default, str) else json.dumps(default)
            rows[key] = f"`{text}`"
    return rows


@pytest.mark.parametrize("title", SETTINGS)
def test_every_setting_is_listed_with_its_default(title: str) -> None:
    section = _section(SPACES, f"#### `{title}`")
    listed = {}
    for key, default, description in re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.*?) \|$", section, re.MULTILINE
    ):
        assert description, (title, key)
        listed[key] = default

    expected = _rows(SETTINGS[title])
    if title not in ("space", "teacher by predictions"):
        expected = {key: default for key, default in expected.items() if key not in NAMES}
    assert listed == expected


def test_no_settings_are_left_out() -> None:
    def below(cls: type[Config]) -> Iterator[type[Config]]:
        for subclass in cls.__subclasses__():
            yield subclass
            yield from below(subclass)

    all_registries()  # imports every module, so that every class of settings is there
    described = {part for cls in SETTINGS.values() for part in cls.__mro__}
    missing = {cls.__name__ for cls in below(Config) if cls.__module__.startswith("gped_nas.")}
    missing -= {cls.__name__ for cls in described}
    # step sizes are described in a section of their own, a space whose teacher is given has the
    # settings of any other, a likelihood makes the prior of its noise, and a condition's one value
    # has no name; the rest are files that the program writes for itself
    assert missing == {
        "StepSize",
        "CosineCycles",
        "NoisePrior",
        "ConditionValue",
        "_GivenSpaceFile",
        "_GridFile",
        "_TeacherFile",
        "_DialsFile",
        "_StudentFile",
        "Manifest",
        "Shard",
        "_SpecFile",
        "_AxisNormalizationFile",
        "_NormalizationFile",
        "_RangeFile",
        "_SpreadFile",
        "_State",
        "Column",
        "TableColumns",
        "_ShardFile",
        "_ManifestFile",
        "PicturePreparation",
        "ModuleFacts",
    }


def test_every_key_and_every_student_of_a_grid_is_listed() -> None:
    section = _section(PAGES["docs/suite.md"].read_text(), "## Axes")
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted([*grid_file._GridFile.model_fields, *grid.STUDENTS])
    below = [grid_file._TeacherFile, grid_file._DialsFile, grid_file._StudentFile]
    assert [key for cls in below for key in cls.model_fields if f"{key}: " not in section] == []


def test_every_shipped_grid_is_described() -> None:
    section = _section(PAGES["docs/suite.md"].read_text(), "## Shipped grids")
    assert [name for name in shipped_grids() if f"| `{name}` |" not in section] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_genotype_value_is_listed(family: str) -> None:
    counts = FAMILIES[family].counts
    tried = {name for example in FAMILIES[family].examples for name in example}
    if family == "module":  # which has no examples, since users bring it
        tried = set(FAMILIES[family].canonical({}))
    listed = set(re.findall(r"^\| `(\w+)` \|", _section(SPACES, f"### `{family}`"), re.MULTILINE))
    assert listed == {*counts, *counts.values(), *tried}
    assert all(f"`{value}`" in _section(SPACES, "## Families") for value in COMMON_VALUES)


def test_every_condition_is_listed() -> None:
    section = _section(SPACES, "## Conditions").split("\n### ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(CONDITIONS)


def test_every_metric_cost_target_and_sampler_is_named() -> None:
    objectives = _section(SPACES, "## Objectives and constraints")
    named = set(re.findall(r"`([\w<>]+)`", objectives))
    for pattern in [name for name in named if "<score>" in name]:
        named |= {pattern.replace("<score>", score) for score in SCORES}
    assert [name for name in (*METRICS, *COSTS, *SCORES) if name not in named] == []

    targets = _section(SPACES, "## Targets")
    rows = re.findall(r"^\| `(\w+)` \| (?:mean|derived|quantile|statistic)", targets, re.MULTILINE)
    assert set(rows) == set(TARGETS)

    search = _section(SPACES, "## Search")
    assert [name for name in space.Sampler.__args__ if f"`{name}`" not in search] == []
