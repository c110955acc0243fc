"""Budgets and drawn settings of pruning on the command line: run, show, report, predict."""

import json
from pathlib import Path

import gped_nas as gn
from gped_nas.models.base import Genotype
from tests.cli.harness import Home, accepted, installed

GENOTYPE = "students.0.genotype."
DRAWN = {
    "depth": "2",
    "width": "{times: [12, 8], choices: [0.5, 1]}",
    "prune_to": "{macs: {int: [220, 700], log: true}}",
    "prune_at": "{choices: [0.3, 0.6]}",
    "prune_exempt": "{choices: [none, last]}",
    "prune_criterion": "{choices: [group_lasso, magnitude]}",
}
NAMES = {"width", "prune_to_macs", "prune_at", "prune_exempt", "prune_criterion"}


def drawn_home(home: Home) -> list[str]:
    words = []
    for key, value in DRAWN.items():
        words += ["--set", f"{GENOTYPE}{key}={value}"]
    return [*words, "--set", "objectives=[nll, macs]", "--n-trials", "12"]


def test_settings_of_pruning_are_drawn_recorded_and_weighed(home: Home, tmp_path: Path) -> None:
    home.run(*drawn_home(home))
    study = gn.open_study(home.study)
    records = [record for record in study.records() if record.state == "complete"]
    trained = [record for record in records if record.variant_of is None]
    assert len(trained) >= 10

    for record in records:
        genotype = Genotype.from_json(record.genotype)
        assert genotype.budget is not None
        budget = record.extra["budget"]
        assert budget["most"] == genotype.budget.most == record.genotype["prune_to_macs"]
        assert record.costs["macs"] == budget["reached"] <= budget["most"]
    assert any(record.extra["dead_units"] for record in trained)
    assert len({record.genotype.get("prune_at") for record in trained}) == 2

    page = tmp_path / "page.html"
    accepted("report", home.study, "--to", page)
    text = page.read_text()
    assert all(f'"{name}' in text or f">{name}<" in text for name in NAMES)
    assert '<th scope="row">budget</th>' in text

    shown = installed("show", home.study, str(trained[0].trial), cwd=home.root)
    assert shown.code == 0 and "budget" in shown.out
    most = trained[0].extra["budget"]["most"]
    assert f"of {most:,}" in shown.out
    as_json = json.loads(
        accepted("show", home.study, str(trained[0].trial), "--format", "json").out
    )
    assert as_json["extra"]["budget"]["most"] == most


def test_a_study_of_bytes_goes_on_and_its_variants_are_of_one_budget(home: Home) -> None:
    words = ["--set", f"{GENOTYPE}prune_to={{storage_bytes: {{int: [850, 1300]}}}}"]
    words += ["--set", "search.every_dtype=true"]
    home.run(*words, "--n-trials", "2")
    home.run(*words, "--n-trials", "3")

    records = gn.open_study(home.study).records()
    for record in records:
        stored = record.genotype["prune_to_int8_bytes"]
        budget = record.extra["budget"]
        assert budget["dtype"] == "int8" and budget["most"] == stored
        if record.genotype["storage_dtype"] == "int8":
            assert record.costs["storage_bytes"] == budget["reached"] <= stored
    trained = {record.trial: record for record in records if record.variant_of is None}
    variants = [record for record in records if record.variant_of is not None]
    assert variants
    for variant in variants:
        of = trained[variant.variant_of]
        assert variant.extra["budget"] == of.extra["budget"]


def test_what_is_known_before_training_is_what_is_measured_after_it(home: Home) -> None:
    home.run("--set", f"{GENOTYPE}prune_to={{macs: 300}}", "--n-trials", "3")
    study = gn.open_study(home.study)
    for record in study.records():
        genotype = Genotype.from_json(record.genotype)
        known = gn.known_cost(
            genotype,
            input_shape=(1, 8, 8),
            num_classes=10,
            targets=["predictive", "expected_entropy"],
        )
        for name, cost in known.items():
            assert record.costs[name] <= cost
            if record.extra["dead_units"] == 0:
                assert record.costs[name] == cost
