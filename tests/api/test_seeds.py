"""Studies over seeds: mean, deviation and interval of their chosen students."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import gped_nas as gn
from gped_nas.api.study import Study
from gped_nas.errors import ConfigError
from gped_nas.evaluate.measured import Key, Measured
from tests.cli.harness import Home


class Seeded(Study):
    """The finished study, as if another seed had given its students another NLL."""

    nll: float = 0.0

    def find(self, trial: int | str) -> Any:
        found = super().find(trial)
        return found.replace(measures={**found.measures, Key("nll"): Measured(self.nll)})


def _seeded(study: Study, path: Path, nll: float) -> Study:
    fields = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    seeded = Seeded(**{**fields, "path": path})
    object.__setattr__(seeded, "nll", nll)
    return seeded


def test_numbers_of_three_seeds_have_mean_deviation_and_interval(
    finished: Home, tmp_path: Path
) -> None:
    study = gn.open_study(finished.study)
    seeds = [_seeded(study, tmp_path / str(nll), nll) for nll in (0.1, 0.2, 0.6)]
    summary = gn.summarise(seeds)

    # mean .3, deviations -.2, -.1, .3: sd = sqrt(.14 / 2); t(2 degrees, 97.5 %) = 4.303
    row = summary.loc["nll"]
    assert row["mean"] == pytest.approx(0.3) and row["n"] == 3
    assert row["sd"] == pytest.approx(0.264575, abs=1e-6)
    half = 4.302653 * 0.264575 / 3**0.5
    assert (row["low"], row["high"]) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-5)

    params = study.find("chosen").costs["params"]
    assert summary.loc["params", ["mean", "sd"]].tolist() == [params, 0]
    teacher = study.reference("teacher").metrics["test_nll"]
    assert summary.loc["teacher: test_nll", "mean"] == pytest.approx(teacher)


def test_what_is_no_set_of_seeds_is_refused(finished: Home, own: Home) -> None:
    study = gn.open_study(finished.study)
    with pytest.raises(ConfigError, match="found 1 studies, expected at least two"):
        gn.summarise([study])
    with pytest.raises(ConfigError, match="found a study twice"):
        gn.summarise([study, study])

    other = gn.open_study(own.study)
    description = other.ledger.document.description
    assert description is not None
    config = {**description.config, "recipe": {"steps": 7}}
    other.ledger.change(description=description.model_copy(update={"config": config}))
    with pytest.raises(ConfigError, match="differ in recipe"):
        gn.summarise([study, other])
