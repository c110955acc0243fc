"""``doctor --posterior`` sees mistakes that people make in posterior methods.

Each bug is a change of one expression in the source of the package, as somebody would mistype it.
``make soak`` injects all of them, the suite the quickest of those that only problems with
minibatches, or with laws of their own, can show.
"""

import dataclasses
import inspect
import textwrap
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from gped_nas.posterior import (
    csghmc,
    csgld,
    deep_ensemble,
    hmc,
    laplace,
    mc_dropout,
    problem,
    psgld,
    schedule,
    sghmc,
    sgld,
    swag,
    vi,
)
from gped_nas.posterior.base import METHODS
from gped_nas.posterior.selftest import selftest
from tests.faults.conftest import SOAK


@dataclass(frozen=True)
class Bug:
    """One expression, mistyped.

    Attributes:
        method: who must be found out.
        module: where it is.
        path: of the function in the module.
        right, wrong: source text; ``right`` occurs once in the function.
        is_quick: whether the suite injects it.
    """

    method: str
    module: ModuleType
    path: str
    right: str
    wrong: str
    is_quick: bool = False


BUGS = {
    "likelihood without N / B": Bug(
        "sghmc",
        problem,
        "Problem._minus_log_likelihood",
        "-scale * self.log_likelihood",
        "-self.log_likelihood",
        is_quick=True,
    ),
    "sgld's noise over N": Bug(
        "sgld",
        sgld,
        "sgld",
        "temperature=cfg.temperature",
        "temperature=cfg.temperature / problem.num_examples",
    ),
    "vi without N / B": Bug("vi", vi, "free_energy", "problem.num_examples / len(index_B)", "1.0"),
    "laplace's Hessian without the prior": Bug(
        "laplace", laplace, "LastLayer.hessian", "len(w)) + of_prior", "len(w))"
    ),
    "csgld sampling anywhere in a cycle": Bug(
        "csgld",
        csgld,
        "CyclicConfig.is_sample",
        "until_end_of_cycle < self.samples_per_cycle * self.thinning",
        "True",
        is_quick=True,
    ),
    "swag's diagonal not halved": Bug(
        "swag", swag, "swag", "/ cfg.collections / 2)", "/ cfg.collections)", is_quick=True
    ),
    "dropout without its scale": Bug(
        "mc_dropout", mc_dropout, "draw_masks", ".float() / (1 - rate)", ".float()", is_quick=True
    ),
    "an anchor's sign": Bug(
        "deep_ensemble",
        deep_ensemble,
        "_objective",
        "p - center[name]",
        "p + center[name]",
    ),
    "sgld's drift not halved": Bug("sgld", sgld, "step", "-step_size / 2", "-step_size"),
    "sghmc's noise of one half step": Bug(
        "sghmc", sghmc, "step", "-2 * friction * step_size", "-friction * step_size"
    ),
    "sghmc drifting twice as far": Bug(
        "sghmc", sghmc, "step", "step_size / (2 * mass)", "step_size / mass"
    ),
    "psgld's noise in the wrong metric": Bug(
        "psgld", psgld, "step", "metric_W.sqrt(), noise_W", "metric_W, noise_W"
    ),
    "hmc without half of its kinetic energy": Bug(
        "hmc",
        hmc,
        "hmc",
        "proposed + momentum_W.square().sum() / 2 - before",
        "proposed + momentum_W.square().sum() / 4 - before",
    ),
    "vi drawing with variances": Bug(
        "vi", vi, "vi", "mean_W + std_W * ", "mean_W + std_W.square() * "
    ),
    "laplace drawing with the precision": Bug(
        "laplace",
        laplace,
        "laplace",
        "torch.linalg.solve_triangular(factor, noise.to(factor.device), upper=True)[:, 0]",
        "(factor.mT @ noise)[:, 0]",
    ),
    "a whole cosine a cycle": Bug(
        "csgld", schedule, "CosineCycles.__call__", "math.pi *", "2 * math.pi *"
    ),
    "csghmc at half the momentum's temperature": Bug(
        "csghmc", csghmc, "csghmc", "temperature=cfg.temperature_at(number)", "temperature=0.5"
    ),
}
INJECTED = {name: bug for name, bug in BUGS.items() if SOAK or bug.is_quick}


def inject(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the function with its mistake in the right one's place."""
    *owners, name = bug.path.split(".")
    owner: Any = bug.module
    for part in owners:
        owner = getattr(owner, part)

    source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
    assert source.count(bug.right) == 1, f"{bug.path} has another text now"
    made: dict[str, Any] = {}
    exec(source.replace(bug.right, bug.wrong), vars(bug.module), made)
    monkeypatch.setattr(owner, name, made[name])

    # What a method runs is registered too.
    method = METHODS[bug.method]
    if method.run.__name__ == name and method.run.__module__ == bug.module.__name__:
        wrong = dataclasses.replace(method, run=made[name])
        monkeypatch.setitem(METHODS._items, bug.method, wrong)


@pytest.mark.parametrize("name", INJECTED)
def test_a_bug_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    inject(bug, monkeypatch)
    findings = selftest([bug.method])
    assert not all(finding.ok for finding in findings), findings


def test_there_are_seventeen_and_the_suite_injects_some() -> None:
    assert len(BUGS) == 17
    assert sum(bug.is_quick for bug in BUGS.values()) >= 4
