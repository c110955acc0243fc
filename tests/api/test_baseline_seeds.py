"""Fresh MAP networks, which chose nothing: the reference, the MAP twin, the verdict."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gped_nas import rng
from gped_nas.api import load_space, open_study, twins
from gped_nas.api import prediction_verdict as judging
from gped_nas.api.map_network import MapNetwork, tuned_map_networks
from gped_nas.api.sampling import posterior
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, build_teacher
from gped_nas.api.tuning_record import record_folder
from gped_nas.evaluate.teacher_calibration import LabeledAnswers, fit_temperature
from gped_nas.models.storage import read_weights
from gped_nas.posterior.base import METHODS, flatten
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import GaussianPrior
from gped_nas.search.space import BaselineConfig
from tests.cli.harness import Home, accepted, snapshot_of

PRECISIONS = [1.0e5, 1.0]
"""The second one is the better one by far."""


def teacher_of(home: Home, seeds: int, **settings: object) -> Teacher:
    changes = {"baseline.precisions": PRECISIONS, "baseline.seeds": seeds, **settings}
    return build_teacher(load_space(home.space, changes), Session())


def nlls_of(networks: tuple[MapNetwork, ...]) -> np.ndarray:
    """NLL of each network at each validation example, (K, N)."""
    dataset = networks[0].teacher.dataset
    raw, labels = dataset.raw("validation"), torch.from_numpy(dataset.labels("validation"))
    index = torch.arange(len(labels))
    return np.stack([-network.forward(raw)[index, labels].numpy() for network in networks])


def trained_alone(teacher: Teacher, *name: object) -> torch.Tensor:
    """Flat parameters of a MAP network of the second precision, its generator of this name."""
    cfg = MapConfig(name="map", steps=100, lr=1e-3, batch_size=100)
    space = replace(teacher.space, method=cfg)
    prior = GaussianPrior(precision=PRECISIONS[1])
    problem = posterior(space, teacher.dataset, device=torch.device("cpu"), prior=prior)
    generator = rng.generator(space.seed, "map", *name)
    *_, last = METHODS["map"](problem, cfg, generator=generator)
    assert last.sample is not None
    return last.sample.theta_W


def test_fresh_networks_have_the_best_precision_and_draws_of_their_own(home: Home) -> None:
    teacher = teacher_of(home, 2)
    (chosen,) = tuned_map_networks(teacher_of(home, 0))
    fresh = tuned_map_networks(teacher)

    assert torch.equal(flatten(chosen.params), trained_alone(teacher, 1))
    assert [network.seed for network in (chosen, *fresh)] == [0, 1, 2]
    for network in fresh:
        assert network.precision == chosen.precision == 1.0
        expected = trained_alone(teacher, 1, "seed", network.seed)
        assert torch.equal(flatten(network.params), expected)


def test_the_verdict_is_beside_the_mean_over_the_fresh_networks(home: Home) -> None:
    teacher = teacher_of(home, 3)
    verdict = judging.judge_predictions(teacher)

    of_map_KN = nlls_of(tuned_map_networks(teacher))
    labels = teacher.dataset.labels("validation")
    of_teacher_N = -teacher.averaged("validation").log_score(labels)
    difference_KN = of_teacher_N - of_map_KN
    assert verdict.nll_of_map_by_seed == pytest.approx(of_map_KN.mean(1), abs=1e-5)
    assert verdict.nll_of_map == pytest.approx(of_map_KN.mean(), abs=1e-5)
    assert verdict.difference == pytest.approx(difference_KN.mean(), abs=1e-5)

    # both examples and seeds are drawn by chance
    of_examples = difference_KN.mean(0).var() / len(labels)
    of_seeds = difference_KN.mean(1).var(ddof=1) / 3
    assert verdict.interval is not None
    assert np.ptp(verdict.interval) > 2 * 1.9 * (of_examples + of_seeds) ** 0.5
    assert of_seeds > 0.1 * of_examples

    numbers = f"NLL {verdict.nll:.4f} against {verdict.nll_of_map:.4f}"
    assert f"{numbers} on validation, mean of 3 seeds (" in verdict.sentence
    assert verdict.to_json()["nll_of_map_by_seed"] == list(verdict.nll_of_map_by_seed)
    assert judging.judge_predictions(teacher_of(home, 3)) == verdict, "it lies with the stream"


def test_each_fresh_network_has_a_temperature_of_its_own(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated = {"teacher.calibration": "temperature", "teacher.method.num_samples": 6}
    teacher = teacher_of(home, 2, **calibrated)
    certain = teacher.raw.predicted("validation")[0].double()
    said = torch.stack([(certain * 3).log_softmax(1), (certain / 2).log_softmax(1)])
    monkeypatch.setattr(judging, "_ask_map_networks", lambda teacher: said)
    verdict = judging.judge_predictions(teacher)

    labels = teacher.dataset.labels("validation")
    each = [LabeledAnswers(row[None], torch.ones(1), labels, None) for row in said]
    temperatures = [fit_temperature(answers) for answers in each]
    assert temperatures[0] > 3 * temperatures[1]
    words = f"each network at its own temperature: {temperatures[0]:g}, {temperatures[1]:g}"
    assert f"mean of 2 seeds, both calibrated there ({words})" in verdict.sentence
    # the same network but for its temperature
    assert np.ptp(verdict.nll_of_map_by_seed) < 1e-3


def test_a_network_that_is_not_finite_leaves_the_verdict_open(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = teacher_of(home, 2)
    said = teacher.predicted("validation")[:2].clone()
    said[1] = -torch.inf
    monkeypatch.setattr(judging, "_ask_map_networks", lambda teacher: said)
    verdict = judging.judge_predictions(teacher)
    assert (verdict.level, verdict.difference, verdict.n) == ("unknown", None, 288)
    assert "of a network is not finite" in verdict.sentence


def test_reference_and_map_twin_are_the_first_fresh_network(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a study that went on from the chosen one: what was trained stays, and no more is."""
    taught = []
    one_network_set = twins.one_network_set

    def watch(teacher: Teacher, data: object, predict: object) -> object:
        taught.append(predict)
        return one_network_set(teacher, data, predict)  # type: ignore[arg-type]

    monkeypatch.setattr(twins, "one_network_set", watch)
    run = ("--n-trials", "1", "--set", f"baseline.precisions={PRECISIONS}")
    run = (*run, "--set", "twins.seeds=1", "--set", "twins.students=1")
    home.run(*run)
    before = {path: path.read_bytes() for path in references_of(home)}
    home.run(*run, "--set", "baseline.seeds=2")

    paths = {path.stem: path for path in references_of(home)}
    assert all(path.read_bytes() == data for path, data in before.items())
    names = {"precision-1-seed-1", "precision-1-seed-2", "precision-1", "precision-100000"}
    assert names <= set(paths)
    dataset, family = home_dataset(home)
    x, labels = dataset.inputs("validation"), torch.from_numpy(dataset.labels("validation"))
    first = family.forward(read_weights(paths["precision-1-seed-1"]), x).double().log_softmax(1)
    nll = -float(first[torch.arange(len(labels)), labels].mean())

    (reference,) = (r for r in snapshot_of(home).references if r.name == "map")
    assert reference.metrics["nll"] == pytest.approx(nll, abs=1e-5)
    assert "prior precision 1 of 100000, 1 by validation NLL; trained anew" in reference.note
    chosen, fresh = taught
    assert torch.allclose(fresh(x).exp(), first.exp(), atol=1e-5)
    assert not torch.allclose(chosen(x).exp(), first.exp(), atol=1e-3)
    assert len(list((home.study / "references" / "twins").glob("*/map_twin-1*"))) == 2

    stored = open_study(home.study).ledger.document.references
    assert stored is not None and stored.prediction_verdict is not None
    assert "mean of 2 seeds" in stored.prediction_verdict["sentence"]
    by_seed = stored.prediction_verdict["nll_of_map_by_seed"]
    assert len(by_seed) == 2 and by_seed[0] == pytest.approx(nll, abs=1e-5)

    # the same figures, from the networks that lie with the stream
    changes = ("--set", f"baseline.precisions={PRECISIONS}", "--set", "baseline.seeds=2")
    shown = json.loads(accepted("teacher", "info", home.space, *changes, "-f", "json").out)
    assert shown["prediction_verdict"]["nll_of_map_by_seed"] == pytest.approx(by_seed, abs=1e-5)


def references_of(home: Home) -> list[Path]:
    return sorted((home.study / "references").rglob("*.safetensors"))


def home_dataset(home: Home):  # type: ignore[no-untyped-def]
    """The dataset, and the family of the teacher."""
    from gped_nas.api import load_dataset

    space = load_space(home.space)
    return load_dataset(space), space.family


def test_no_seeds_are_nowhere_in_what_is_kept(home: Home) -> None:
    plain = load_space(home.space, {"baseline.seeds": 0})
    seeded = load_space(home.space, {"baseline.seeds": 3})
    assert plain.resolved == load_space(home.space).resolved
    assert set(plain.resolved["baseline"]) == {"precisions", "steps", "lr"}
    assert seeded.resolved["baseline"]["seeds"] == 3
    assert set(BaselineConfig().model_dump()) == {"precisions", "steps", "lr"}
    # what a tuning tries has seeds of its own
    assert record_folder(plain) == record_folder(seeded)
