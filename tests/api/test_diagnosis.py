"""The battery on real, tiny teachers: what is measured, from what, and what is missing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gped_nas as gn
from gped_nas.api import diagnosis as module
from gped_nas.api.comparison import compare_methods, measure
from gped_nas.api.diagnosis import Diagnosis, diagnose
from gped_nas.api.sampling import posterior
from gped_nas.api.session import Session
from gped_nas.api.settings import method_settings
from gped_nas.api.teacher import Teacher, build_teacher
from gped_nas.api.verdict import judge
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.posterior.base import METHODS, unflatten
from gped_nas.posterior.diagnostics import rhat
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import parse_space

SPACE = {
    "name": "tiny",
    "dataset": {"name": "digits"},
    "teacher": {
        "family": "mlp",
        "genotype": {"depth": 1, "width": 3},
        "method": {
            "name": "sgld",
            "chains": 2,
            "num_samples": 12,
            "step_size": {"initial": 2e-4},
            "burn_in": 20,
            "thinning": 10,
        },
    },
    "students": [{"family": "mlp", "genotype": {"depth": 1, "width": {"choices": [2, 4]}}}],
}


def space() -> SearchSpace:
    return parse_space(SPACE, "tiny.yaml")


def teacher(**method: object) -> Teacher:
    tiny = space()
    dataset = gn.load_dataset(tiny)
    cfg = method_settings(tiny, dataset, method)
    return build_teacher(replace(tiny, method=cfg, views=()), Session(), dataset=dataset)


@pytest.fixture(scope="module")
def sghmc(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """Two chains of 6 samples each; sample s is of chain s % 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPED_CACHE", str(tmp_path_factory.mktemp("sghmc")))
        return teacher(name="sghmc", step_size={"initial": 0.01}, mass=2.0)


@pytest.fixture(scope="module")
def battery(sghmc: Teacher) -> Diagnosis:
    return diagnose(sghmc)


def test_mixing_is_that_of_the_stream(sghmc: Teacher, battery: Diagnosis) -> None:
    theta = torch.stack([sghmc.stream.theta(i) for i in range(12)]).double()
    by_hand = rhat(torch.stack([theta[0::2], theta[1::2]]))

    # every weight is looked at: 65 * 3 + 4 * 10 of them
    weights = battery.mixing["weights"]
    assert weights.num == theta.shape[1] == 235
    median = float(by_hand[~by_hand.isnan()].sort().values[117])
    assert weights.rhat is not None and weights.rhat[0] == median

    assert battery.mixing["probabilities"].num == 2880
    assert battery.mixing["log_likelihood"].num == 288


def test_the_kinetic_temperature_is_that_of_the_last_states(
    sghmc: Teacher, battery: Diagnosis
) -> None:
    """It is m^T m / (d mass), d = 2 * 235."""
    momenta = [torch.from_numpy(m).double() for m in sghmc.stream.states("momentum")]
    expected = float(sum(m.square().sum() for m in momenta)) / (470 * 2.0)
    assert battery.kinetic is not None and battery.kinetic.degrees_of_freedom == 470
    assert battery.kinetic.value == pytest.approx(expected)


def test_the_configurational_temperature_is_that_of_full_gradients(
    sghmc: Teacher, battery: Diagnosis
) -> None:
    """It is theta . grad U / d at all 12 samples, by autograd over all training examples."""
    problem = posterior(space(), sghmc.dataset, device=torch.device("cpu"))
    examples = torch.arange(problem.num_examples)
    virial = []
    for sample in range(12):
        flat = sghmc.stream.theta(sample).requires_grad_()
        energy = problem.potential(unflatten(flat, problem.shapes), examples)
        (gradient,) = torch.autograd.grad(energy, flat)
        virial.append(float(flat.detach().double() @ gradient.double()) / 235)

    assert battery.configurational is not None
    assert battery.configurational.degrees_of_freedom == 12
    assert battery.configurational.value == pytest.approx(sum(virial) / 12, rel=1e-4)


def test_quality_is_that_of_one_sample_and_of_the_average(
    sghmc: Teacher, battery: Diagnosis
) -> None:
    labels = sghmc.dataset.labels("validation")
    hits = [(row.argmax(-1).numpy() == labels).mean() for row in sghmc.predicted("validation")]
    assert battery.single["accuracy"] == pytest.approx(sum(hits) / 12)
    assert battery.average["nll"] == pytest.approx(battery.curve[-1][1])
    assert battery.average["nll"] < battery.single["nll"]


def test_chains_are_compared_by_their_averages(sghmc: Teacher, battery: Diagnosis) -> None:
    log_prob = sghmc.predicted("validation")
    even, odd = log_prob[0::2].double().exp().mean(0), log_prob[1::2].double().exp().mean(0)
    distance = float((even - odd).abs().sum(-1).mean() / 2)
    same_class = float((even.argmax(-1) == odd.argmax(-1)).double().mean())
    assert battery.total_variation == pytest.approx(distance)
    assert battery.agreement == pytest.approx(same_class)


def test_of_many_quantities_a_fixed_subset_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_QUANTITIES", "MAX_WEIGHTS", "MAX_GRADIENTS", "MAX_EXAMPLES"):
        monkeypatch.setattr(module, name, 7)

    sgld = teacher(name="sgld")
    diagnosis = diagnose(sgld)

    assert diagnosis.mixing["probabilities"].num == diagnosis.mixing["weights"].num == 7
    assert diagnosis.configurational is not None
    assert diagnosis.configurational.degrees_of_freedom == 7
    assert diagnose(sgld) == diagnosis


def test_a_regression_has_means_instead_of_probabilities() -> None:
    settings = {
        **SPACE,
        "dataset": {"name": "linear_gaussian", "num_examples": 40},
        "objectives": ["nll", "flops"],
        "targets": ["predictive_normal"],
        "teacher": {**SPACE["teacher"], "likelihood": {"name": "gaussian"}},  # type: ignore[dict-item]
    }
    real = parse_space(settings, "real.yaml")

    methods = ["sgld", {"name": "map", "steps": 100}]
    rows = compare_methods(real, methods=methods, reference="sgld", session=Session())
    assert [row.method for row in rows] == ["sgld", "map"]
    assert rows[1].agreement is None and rows[1].accuracy is None and rows[1].ood_entropy is None

    built = build_teacher(replace(real, views=()), Session())
    diagnosis = diagnose(built)
    num_validation = len(built.dataset.validation)
    assert diagnosis.mixing["means"].num == num_validation
    assert diagnosis.mixing["log_likelihood"].num == num_validation
    assert set(diagnosis.single) == set(diagnosis.average) == {"nll", "rmse"}
    assert diagnosis.average["nll"] == rows[0].nll == pytest.approx(diagnosis.curve[-1][1])
    assert "real numbers" in diagnosis.missing["agreement between chains"]
    assert "predicted mean" in judge(diagnosis).sentence


SMALL = {
    "vi": {"steps": 100},
    "deep_ensemble": {"steps": 100, "num_samples": 2},
    "map": {"steps": 100},
    "sgld": {"chains": 1, "num_samples": 3},
}


@pytest.mark.parametrize(
    ("name", "missing", "level", "says"),
    [
        ("vi", {"kinetic temperature"}, None, "the law that vi fits"),
        (
            "deep_ensemble",
            {"R-hat and ESS", "kinetic temperature"},
            "usable with care",
            "trained points",
        ),
        (
            "map",
            {
                "R-hat and ESS",
                "agreement between chains",
                "kinetic temperature",
                "configurational temperature",
            },
            "do not trust",
            "single posterior sample",
        ),
        (
            "sgld",
            {"R-hat and ESS", "agreement between chains", "kinetic temperature"},
            "do not trust",
            "3 draws a chain; at least 4",
        ),
    ],
)
def test_what_a_method_cannot_have_is_said(
    name: str, missing: set[str], level: str | None, says: str
) -> None:
    diagnosis = diagnose(teacher(name=name, **SMALL[name]))
    assert set(diagnosis.missing) == missing
    assert (diagnosis.mixing == {}) == ("R-hat and ESS" in missing)
    assert (diagnosis.agreement is None) == ("agreement between chains" in missing)

    verdict = judge(diagnosis)
    assert says in verdict.sentence and "nan" not in verdict.sentence
    assert level in (None, verdict.level)


def test_methods_are_compared_with_the_reference() -> None:
    hmc = {"name": "hmc", "chains": 2, "num_samples": 8, "burn_in": 5, "leapfrog_steps": 3}
    methods = ["sgld", hmc, {"name": "map", "steps": 100}]
    rows = compare_methods(space(), methods=methods, session=Session())
    assert [row.method for row in rows] == ["hmc", "sgld", "map"]
    reference_row, sgld_row, map_row = rows
    assert reference_row.agreement is None and reference_row.total_variation is None
    assert all(0 <= row.ood_entropy <= 1 and row.seconds > 0 for row in rows)  # type: ignore[operator]

    sgld, reference = teacher(name="sgld"), teacher(**hmc)
    prob = torch.from_numpy(sgld.averaged("validation").log_prob_NC).exp()
    true_prob = torch.from_numpy(reference.averaged("validation").log_prob_NC).exp()
    distance = float((prob - true_prob).abs().sum(-1).mean() / 2)
    same_class = float((prob.argmax(-1) == true_prob.argmax(-1)).double().mean())
    assert sgld_row.total_variation == pytest.approx(distance)
    assert sgld_row.agreement == pytest.approx(same_class)
    assert sgld_row.weights_bytes == 12 * 235 * 4

    # one sample has no information but rounding
    assert map_row.ood_information == pytest.approx(0.5, abs=0.1)
    assert map_row.effective_samples is None and map_row.verdict == "do not trust"
    assert map_row.weights_bytes == 235 * 4

    # the row of the space's own method is that of its own stream, measured on any part
    assert measure(sgld, part="validation", truth=None).nll == sgld_row.nll
    assert measure(sgld, part="test", truth=None).nll != sgld_row.nll


def test_every_method_has_settings_that_suit_the_space() -> None:
    tiny = space()
    dataset = gn.load_dataset(tiny)
    for name in [n for n, m in METHODS.items() if n != "import" and not m.reads_samples]:
        cfg = method_settings(tiny, dataset, name)
        assert cfg.name == name
        assert getattr(cfg, "chains", 2) == 2
        assert getattr(cfg, "num_samples", 12) == (10 if name == "deep_ensemble" else 12)

    assert method_settings(tiny, dataset, "sgld") == tiny.method
    sghmc_cfg = method_settings(tiny, dataset, "sghmc")
    assert sghmc_cfg.step_size.initial == pytest.approx(2e-4**0.5)  # type: ignore[attr-defined]


def test_a_codec_reads_the_own_method_where_it_does_not_say_of_which() -> None:
    tiny = space()
    dataset = gn.load_dataset(tiny)

    law = method_settings(tiny, dataset, {"name": "low_rank", "rank": 2})
    assert law.of == tiny.method  # type: ignore[attr-defined]
    assert (law.num_samples, law.chains) == (12, 1)  # type: ignore[attr-defined]

    # of a codec that does not say it either; what it reads is completed, too
    of = {"name": "subset", "num_samples": 4}
    nested = method_settings(tiny, dataset, {"name": "quantized", "of": of})
    assert nested.of.of == tiny.method  # type: ignore[attr-defined]
    hot = method_settings(
        tiny, dataset, {"name": "quantized", "of": {"name": "sgld", "temperature": 2.0}}
    )
    expected = tiny.method.model_dump() | {"temperature": 2.0}
    assert hot.of.model_dump() == expected  # type: ignore[attr-defined]


def test_settings_come_from_files_too(tmp_path: Path) -> None:
    tiny = space()
    dataset = gn.load_dataset(tiny)
    file = tmp_path / "mine.yaml"

    file.write_text("{name: vi, lr: 0.02}")
    cfg = method_settings(tiny, dataset, str(file))
    assert (cfg.name, cfg.lr, cfg.num_samples) == ("vi", 0.02, 12)  # type: ignore[attr-defined]

    file.write_text("{lr: 0.02}")
    with pytest.raises(ConfigError, match="mine.yaml: name: found None"):
        method_settings(tiny, dataset, file)


def test_settings_and_references_that_do_not_suit_are_refused() -> None:
    tiny = space()
    with pytest.raises(ConfigError, match="num_samples: found 3, expected a multiple of chains"):
        method_settings(tiny, gn.load_dataset(tiny), {"name": "vi", "num_samples": 3})
    with pytest.raises(RegistryError, match="hcm.*hmc"):
        compare_methods(tiny, methods=["sgld"], reference="hcm", session=Session())
    wide = replace(tiny, genotype=tiny.network.replace(width=400))
    with pytest.raises(ConfigError, match="hmc for 30,010 parameters, expected at most 20,000"):
        compare_methods(wide, methods=["sgld"], session=Session())


@pytest.mark.parametrize("chains", [1, 4])
@pytest.mark.parametrize("step_size", [1e-30, 1e-12])
def test_chains_that_never_left_their_trained_networks_are_not_trusted(
    chains: int, step_size: float
) -> None:
    still = teacher(
        name="sgld",
        chains=chains,
        num_samples=10 * chains,
        start={"name": "map", "steps": 100, "lr": 0.02},
        step_size={"initial": step_size},
        burn_in=10,
        thinning=10,
    )
    verdict = judge(diagnose(still))
    assert verdict.level == "do not trust"
    says = "none of the probabilities changes" if (chains, step_size) == (1, 1e-30) else "R-hat"
    assert says in verdict.sentence
