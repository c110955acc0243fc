"""Settings under the names that they had first: read everywhere, with one warning a run."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from gped_nas.api.identity import identity
from gped_nas.config import Config, parse
from gped_nas.data.base import load
from gped_nas.data.dials import DataConfig, turn
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.posterior.deep_ensemble import DeepEnsembleConfig
from gped_nas.search.record import TrialRecord
from gped_nas.search.space_file import load_space
from gped_nas.spelling import NEW_NAMES, as_digested, as_today, renamed
from gped_nas.stream.key import StreamKey
from tests.cli.harness import installed, new_home

OLD = {
    "recipe.optimiser": "sgd",
    "recipe.centred": True,
    "teacher.method": {"name": "deep_ensemble", "num_samples": 2, "regulariser": "anchor"},
}


def tiny(tmp_path: Path) -> Path:
    return new_home(tmp_path / "home").space


def as_today_dotted(settings: dict[str, object]) -> dict[str, object]:
    """Dotted keys and what they hold, under the names of today."""
    today = {}
    for key, value in settings.items():
        parts = [NEW_NAMES.get(part, part) for part in key.split(".")]
        today[".".join(parts)] = as_today(value)
    return today


def test_old_names_mean_the_new_ones_and_one_warning_tells_of_all(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning) as caught:
        old = load_space(tiny(tmp_path), OLD)
    (warning,) = caught
    for name in ("recipe.optimiser", "recipe.centred", "teacher.method.regulariser"):
        *parents, last = name.split(".")
        new_name = ".".join([*parents, NEW_NAMES[last]])
        assert f"{name} is now called {new_name}" in str(warning.message)

    new = load_space(tiny(tmp_path), as_today_dotted(OLD))
    assert old == new and old.resolved == new.resolved
    assert old.recipe.optimizer == "sgd" and old.recipe.centered
    assert identity(old, "stream") == identity(new, "stream")


def test_new_names_warn_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_space(tiny(tmp_path), as_today_dotted(OLD)).recipe.centered


@pytest.mark.filterwarnings("ignore:.* is now called:FutureWarning")
@pytest.mark.parametrize("names", [("optimizer", "optimiser"), ("optimiser", "optimizer")])
def test_an_override_wins_under_either_name(tmp_path: Path, names: tuple[str, str]) -> None:
    space = tiny(tmp_path)
    written, overridden = names
    text = space.read_text().replace("recipe: {", f"recipe: {{{written}: sgd, ")
    space.write_text(text)
    assert load_space(space).recipe.optimizer == "sgd"
    assert load_space(space, {f"recipe.{overridden}": "muon"}).recipe.optimizer == "muon"


def test_both_names_at_once_are_refused() -> None:
    settings = {"optimiser": "sgd", "optimizer": "muon"}
    with pytest.raises(ConfigError, match="optimiser: found beside optimizer, its new name"):
        parse(Recipe, settings, "here: recipe")


def test_the_library_and_datasets_take_them_too() -> None:
    assert Recipe(**{"optimiser": "muon"}).optimizer == "muon"
    ensemble = DeepEnsembleConfig(**{"name": "deep_ensemble", "regulariser": "anchor"})
    assert ensemble.regularizer == "anchor"
    old = load({"name": "linear_gaussian", "num_unlabelled": 3})
    assert len(old.raw("unlabeled")) == 3
    assert old.digest == load({"name": "linear_gaussian", "num_unlabeled": 3}).digest


def test_a_plug_in_that_calls_a_setting_so_keeps_it() -> None:
    class Mine(Config):
        optimiser: str

    assert parse(Mine, {"optimiser": "mine"}, "here").optimiser == "mine"


def test_streams_are_named_as_they_were() -> None:
    """A key's digest covers the old name, whichever name its method's settings came under."""
    settings = {"name": "deep_ensemble", "regularizer": "anchor"}

    def key(method: dict[str, object]) -> StreamKey:
        genotype = {"family": "mlp", "depth": 0}
        return StreamKey("d", (2,), 1, genotype, {"name": "gaussian"}, method, 0)

    assert key(settings).digest == key(as_digested(settings)).digest
    assert key(settings).to_json()["method"]["regulariser"] == "anchor"


def test_a_patch_lies_where_it_lay_before_a_part_had_another_name() -> None:
    """The digest is of the inputs; 425adcb gave this one."""
    digits = load({"name": "digits"})
    turned = turn(replace(digits, unlabeled=digits.test.x[:50]), DataConfig(mask=2), "here")
    assert turned.digest[:16] == "9e02399b1bb304fd"


def test_a_record_of_before_is_read_under_the_names_of_today() -> None:
    record = TrialRecord(0, "complete", {}, extra={"recipe": {"optimiser": "sgd"}, "seed": 1})
    read = TrialRecord.loads(record.dumps())
    assert read.extra == {"recipe": {"optimizer": "sgd"}, "seed": 1}
    assert read == replace(record, extra=read.extra)


def test_names_are_changed_at_every_depth_and_back() -> None:
    old = {"a": [{"optimiser": 1}, (2, {"centred": 3})], "b": {"regulariser": {"c": 4}}}
    new = {"a": [{"optimizer": 1}, [2, {"centered": 3}]], "b": {"regularizer": {"c": 4}}}
    assert renamed(old, NEW_NAMES) == new
    assert as_today(as_digested(new)) == new


@pytest.mark.parametrize("options", [(), pytest.param(("-q",), marks=pytest.mark.soak)])
def test_a_user_of_the_command_is_told_in_one_plain_line(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    home = new_home(tmp_path / "home")
    setting = "recipe.optimiser=sgd"
    result = installed("run", home.space, "--dry-run", "--set", setting, *options, cwd=home.root)
    assert result.code == 0, result.err

    line = (
        "gped-search: warning: recipe.optimiser is now called recipe.optimizer; "
        "old names are still read\n"
    )
    assert result.err == ("" if options else line)
