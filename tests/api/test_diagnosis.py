"""The battery on real, tiny teachers: what is measured, what is said to be missing, and what it is
made of.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gped_nas as gn
from gped_nas.api import diagnosis as module
from gped_nas.api.comparison import compare_methods, measure
from gped_nas.api.diagnosis import diagnose
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
    found = space()
    dataset = gn.load_dataset(found)
    cfg = method_settings(found, dataset, method)
    return build_teacher(replace(found, method=cfg, views=()), Session(), dataset=dataset)


def test_numbers_are_those_of_the_stream() -> None:
    built = teacher(name="sghmc", step_size={"initial": 0.01}, mass=2.0)
    found = diagnose(built)
    theta = torch.stack([built.stream.theta(i) for i in range(12)]).double()
    # every weight is looked at: 65 * 3 + 4 * 10 of them, sample s being of chain s % 2
    by_hand = rhat(torch.stack([theta[0::2], theta[1::2]]))
    weights = found.mixing["weights"]
    assert weights.num == theta.shape[1] == 235
    assert weights.rhat is not None and weights.rhat[0] == float(
        by_hand[~by_hand.isnan()].sort().values[117]
    )
    assert (found.mixing["probabilities"].num, found.mixing["log_likelihood"].num) == (2880, 288)
    # momenta of the two last states: m^T m / (d mass), d = 2 * 235
    momenta = [torch.from_numpy(m).double() for m in built.stream.states("momentum")]
    assert found.kinetic is not None and found.kinetic.degrees_of_freedom == 470
    assert found.kinetic.value == pytest.approx(
        float(sum(m.square().sum() for m in momenta)) / (470 * 2.0)
    )
    # theta . grad U / d at all 12 samples, the gradient by autograd over all training examples
    problem = posterior(space(), built.dataset, device=torch.device("cpu"))
    virial = []
    for row in theta:
        flat = row.float().requires_grad_()
        energy = problem.potential(
            unflatten(flat, problem.shapes), torch.arange(problem.num_examples)
        )
        (gradient,) = torch.autograd.grad(energy, flat)
        virial.append(float(flat.detach().double() @ gradient.double()) / 235)
    assert found.configurational is not None and found.configurational.degrees_of_freedom == 12
    assert found.configurational.value == pytest.approx(sum(virial) / 12, rel=1e-4)
    # one sample and the average
    log_prob, labels = built.predicted("validation"), built.dataset.labels("validation")
    hits = [(row.argmax(-1).numpy() == labels).mean() for row in log_prob]
    assert found.single["accuracy"] == pytest.approx(sum(hits) / 12)
    assert (
        found.average["nll"] == pytest.approx(found.curve[-1][1])
        and found.average["nll"] < found.single["nll"]
    )
    # chains: the averages of the even and of the odd samples
    even, odd = log_prob[0::2].double().exp().mean(0), log_prob[1::2].double().exp().mean(0)
    assert found.total_variation == pytest.approx(float((even - odd).abs().sum(-1).mean() / 2))
    assert found.agreement == pytest.approx(
        float((even.argmax(-1) == odd.argmax(-1)).double().mean())
    )


def test_of_many_quantities_a_fixed_subset_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_QUANTITIES", "MAX_WEIGHTS", "MAX_GRADIENTS", "MAX_EXAMPLES"):
        monkeypatch.setattr(module, name, 7)
    built = teacher(name="sgld")
    found = diagnose(built)
    assert found.mixing["probabilities"].num == found.mixing["weights"].num == 7
    assert found.configurational is not None and found.configurational.degrees_of_freedom == 7
    assert diagnose(built) == found


def test_a_regression_has_means_instead_of_probabilities() -> None:
    data = {"name": "linear_gaussian", "num_examples": 40}
    found = parse_space(
        {
            **SPACE,
            "dataset": data,
            "objectives": ["nll", "flops"],
            "targets": ["predictive_normal"],
            "teacher": {**SPACE["teacher"], "likelihood": {"name": "gaussian"}},  # type: ignore[dict-item]
        },
        "real.yaml",
    )
    rows = compare_methods(
        found, methods=["sgld", {"name": "map", "steps": 100}], reference="sgld", session=Session()
    )
    assert [row.method for row in rows] == ["sgld", "map"]
    assert rows[1].agreement is None and rows[1].accuracy is None and rows[1].ood_entropy is None
    built = build_teacher(replace(found, views=()), Session())
    told = diagnose(built)
    assert (
        told.mixing["means"].num
        == told.mixing["log_likelihood"].num
        == len(built.dataset.validation)
    )
    assert set(told.single) == set(told.average) == {"nll", "rmse"}
    assert told.average["nll"] == rows[0].nll == pytest.approx(told.curve[-1][1])
    assert "real numbers" in told.missing["agreement between chains"]
    assert "predicted mean" in judge(told).sentence


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
    found = diagnose(teacher(name=name, **SMALL[name]))
    assert set(found.missing) == missing
    assert (found.mixing == {}) == ("R-hat and ESS" in missing)
    assert (found.agreement is None) == ("agreement between chains" in missing)
    verdict = judge(found)
    assert says in verdict.sentence and "nan" not in verdict.sentence
    assert level in (None, verdict.level)


def test_methods_are_compared_with_the_reference() -> None:
    hmc = {"name": "hmc", "chains": 2, "num_samples": 8, "burn_in": 5, "leapfrog_steps": 3}
    rows = compare_methods(
        space(), methods=["sgld", hmc, {"name": "map", "steps": 100}], session=Session()
    )
    assert [row.method for row in rows] == ["hmc", "sgld", "map"]
    assert rows[0].agreement is None and rows[0].total_variation is None
    own, reference = teacher(name="sgld"), teacher(**hmc)
    probs = [torch.from_numpy(t.averaged("validation").log_prob_NC).exp() for t in (own, reference)]
    assert rows[1].total_variation == pytest.approx(
        float((probs[0] - probs[1]).abs().sum(-1).mean() / 2)
    )
    assert rows[1].agreement == pytest.approx(
        float((probs[0].argmax(-1) == probs[1].argmax(-1)).double().mean())
    )
    assert rows[1].weights_bytes == 12 * 235 * 4 and rows[2].weights_bytes == 235 * 4
    assert all(0 <= row.ood_entropy <= 1 and row.seconds > 0 for row in rows)  # type: ignore[operator]
    assert rows[2].ood_information == pytest.approx(
        0.5, abs=0.1
    )  # one sample has no information but rounding
    assert rows[2].effective_samples is None and rows[2].verdict == "do not trust"
    # the row of the space's own method is that of its own stream, measured on any part
    assert measure(own, part="validation", truth=None).nll == rows[1].nll
    assert measure(own, part="test", truth=None).nll != rows[1].nll


def test_every_method_has_settings_that_suit_the_space() -> None:
    found = space()
    dataset = gn.load_dataset(found)
    for name in set(METHODS) - {"import"}:
        cfg = method_settings(found, dataset, name)
        assert cfg.name == name
        assert getattr(cfg, "chains", 2) == 2
        assert getattr(cfg, "num_samples", 12) == (10 if name == "deep_ensemble" else 12)
    assert method_settings(found, dataset, "sgld") == found.method
    assert method_settings(found, dataset, "sghmc").step_size.initial == pytest.approx(2e-4**0.5)  # type: ignore[attr-defined]


def test_settings_come_from_files_too_and_bad_ones_are_refused(tmp_path: Path) -> None:
    found = space()
    dataset = gn.load_dataset(found)
    file = tmp_path / "mine.yaml"
    file.write_text("{name: vi, lr: 0.02}")
    cfg = method_settings(found, dataset, str(file))
    assert (cfg.name, cfg.lr, cfg.num_samples) == ("vi", 0.02, 12)  # type: ignore[attr-defined]
    file.write_text("{lr: 0.02}")
    with pytest.raises(ConfigError, match="mine.yaml: name: found None"):
        method_settings(found, dataset, file)
    with pytest.raises(ConfigError, match="num_samples: found 3, expected a multiple of chains"):
        method_settings(found, dataset, {"name": "vi", "num_samples": 3})
    with pytest.raises(RegistryError, match="hcm.*hmc"):
        compare_methods(found, methods=["sgld"], reference="hcm", session=Session())
    wide = replace(found, genotype=found.genotype.replace(width=400))
    with pytest.raises(ConfigError, match="hmc for 30,010 parameters, expected at most 20,000"):
        compare_methods(wide, methods=["sgld"], session=Session())
