"""A study in a notebook: frames and figures with the numbers of the records."""

import math

import pytest

import gped_nas as gn
from gped_nas.errors import ConfigError
from tests.cli.harness import Home


def test_the_front_is_a_frame_of_its_records(finished: Home) -> None:
    study = gn.open_study(finished.study)
    front, records = study.front(), study.front_records()
    assert front.index.name == "trial"
    assert front.index.tolist() == [record.trial for record in records]
    assert front.columns.tolist()[:4] == ["student", "nll", "flops", "storage_bytes"]
    assert front.columns.is_unique

    for record in records:
        row = front.loc[record.trial]
        assert row["student"] == str(gn.Genotype.from_json(record.genotype))
        for name, value in {**record.metrics, **record.costs}.items():
            assert row[name] == value

    assert "<table" in front._repr_html_() and front["flops"].dtype.kind == "i"


def test_all_trials_are_a_frame_too(finished: Home) -> None:
    study = gn.open_study(finished.study)
    frame, records = study.trials(), study.records()
    assert frame.index.tolist() == list(range(len(records)))
    assert frame.columns.tolist()[:4] == ["student", "state", "reason", "nll"]
    assert frame["state"].tolist() == [record.state for record in records]
    tested = frame["test_nll"].notna()
    assert frame.index[tested].tolist() == sorted(record.trial for record in study.front_records())


def test_figures_are_found_by_name(finished: Home) -> None:
    study = gn.open_study(finished.study)
    front = next(trace for trace in study.figure("front").data if trace.name == "front")
    by_trial = sorted(study.front_records(), key=lambda record: record.trial)
    assert list(front.y) == [float(f"{r.metrics['nll']:.6g}") for r in by_trial]

    over_params = study.figure("front", x="params", y="accuracy")
    assert over_params.layout.xaxis.title.text == "parameters"

    of_search, at_random = study.figure("hypervolume").data
    assert math.isclose(of_search.y[-1], at_random.y[-1])


def test_the_knee_is_on_the_front_and_random_order_ends_where_the_search_does(
    finished: Home,
) -> None:
    snapshot = gn.open_study(finished.study).snapshot()
    assert snapshot.knee in snapshot.front
    assert len(snapshot.random_order) == len(snapshot.hypervolume) == len(snapshot.records)
    assert math.isclose(snapshot.random_order[-1], snapshot.hypervolume[-1])
    objectives = {"nll", "flops", "storage_bytes"}
    assert set(snapshot.best_point) == set(snapshot.reference_point) == objectives


def test_a_comparison_of_fewer_than_two_is_refused(finished: Home) -> None:
    for studies in ([], [gn.open_study(finished.study)]):
        with pytest.raises(ConfigError, match=f"found {len(studies)} studies"):
            gn.compare_studies(studies)
