"""Tune the teacher of a space: which posterior method with which settings predicts best.

Candidates are compared on training data that is held out (``api.held_out``), climb rungs, and are
given up where they fall behind the best one. MAP networks come first, on the baseline's grid, since
the end compares with them; then known starting points; then what TPE draws
(``search.proposals``). A record in the cache (``api.tuning_record``) makes it go on where it was.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gped_nas import rng
from gped_nas.api.asking import check_stored
from gped_nas.api.diagnosis import diagnose
from gped_nas.api.held_out import Candidate, HeldOut, hold_out, losses_by_sample
from gped_nas.api.sampling import posterior, stream_key
from gped_nas.api.session import Session, new_session
from gped_nas.api.teacher import load_dataset
from gped_nas.api.tuning_answer import TeacherTuning, candidate_of, conclude_tuning
from gped_nas.api.tuning_clock import Clock, effort_within
from gped_nas.api.tuning_record import LOCK, Record, Tried, read_record, record_folder
from gped_nas.api.tuning_starts import (
    HIGHEST_PRECISION,
    LOWEST_PRECISION,
    SHIPPED,
    Start,
    map_start,
    needs_evidence,
    teacher_start,
)
from gped_nas.api.verdict import judge
from gped_nas.errors import ConfigError, DivergenceError, Interrupted, nearest
from gped_nas.evaluate.predictions import Floats
from gped_nas.io import lock, make_dir
from gped_nas.posterior.base import METHODS, parse_method
from gped_nas.posterior.evidence import evidence_precision
from gped_nas.posterior.priors import GaussianPrior, LayeredGaussianPrior, Prior, layer_kind
from gped_nas.posterior.tunable import Draw, Effort, three_digits
from gped_nas.search.proposals import Proposal, TrialDraw, UsualDraw, propose
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space

DEFAULT_SECONDS = 300.0
_BEHIND = 1.0
"""Standard errors of a paired difference by which a candidate is behind when it is given up."""
_ALIKE = 0.02
"""Share of the best one's loss by which candidates differ and are as good: seeds differ by more."""


def tune_teacher(
    space: SearchSpace | str | Path,
    *,
    budget: float | None = None,
    n_trials: int | None = None,
    methods: Sequence[str] | None = None,
    seed: int | None = None,
    session: Session | None = None,
    told: Callable[[Tried, int], None] = lambda tried, number: None,
    began: float | None = None,
) -> TeacherTuning:
    """The teacher that predicts best, tuned on held-out training data and built on all of it.

    Args:
        space: a search space, its file or its shipped name.
        budget: about how many seconds this call may take, its end included; 300 where neither this
            nor ``n_trials`` is given.
        n_trials: candidates for a teacher in all, earlier calls included; MAP networks are beside
            them.
        methods: the posterior methods to choose from; by default those that are worth a try.
        seed: root of every seed; the space's by default.
        session: how to run.
        told: called with each candidate that ended, and its number.
        began: when the budget began, by ``time.monotonic``; now by default.

    Returns:
        The teacher, what it is worth beside MAP, and all candidates.

    Raises:
        ConfigError: the budget is too short for the least tuning, a method has nothing to tune, or
            the space has no networks.
        GateError: no candidate came to its end.
        Interrupted: the session said stop; the same call goes on from there.
    """
    if not isinstance(space, SearchSpace):
        space = load_space(space, {} if seed is None else {"seed": seed})
    elif seed is not None and seed != space.seed:
        raise ConfigError(
            f"seed: found {seed}, the space says {space.seed}; give the seed when loading the space"
        )
    if n_trials is not None and n_trials < 1:
        raise ConfigError(f"--n-trials: found {n_trials}, expected at least 1")
    if budget is None and n_trials is None:
        budget = DEFAULT_SECONDS

    check_stored(space, "a tuning, whose candidates are compared sample by sample")
    chosen = _methods(methods, space)
    session = session or new_session()
    clock = Clock(budget, began=time.monotonic() if began is None else began)
    network = space.network  # refused here where there is none
    if space.module is not None:
        space.module.require()
    dataset = load_dataset(space)
    key = stream_key(space, dataset)
    held_out = hold_out(dataset, space.seed, space.source)

    folder = make_dir(record_folder(space))
    with lock(folder / LOCK, wait=False):
        about = {
            "space": space.name,
            "dataset": dataset.digest,
            "teacher": f"{network} {key.module['answers']}" if key.module else str(network),
            "held_out": held_out.text,
        }
        record = read_record(folder)
        if record is None or any(record.about[k] != about[k] for k in ("dataset", "teacher")):
            record = Record(folder, about)
        effort = effort_within(space, held_out, replace(session, streams=record.streams), clock)
        tuning = _Tuning(space, held_out, record, effort, chosen, clock, session, told)
        tuning.try_all(n_trials)
        return conclude_tuning(space, dataset, held_out, record, session)


def _methods(names: Sequence[str] | None, space: SearchSpace) -> list[str]:
    """The methods to choose from.

    Args:
        names: those that were asked for; None for those that are worth a try.
        space: whose teacher some methods do not take.

    Raises:
        RegistryError: unknown method.
        ConfigError: one that is not tuned.
    """
    tuned, unfit = {}, {}
    for name, method in METHODS.items():
        if method.tuned is None:
            continue
        if method.looks_inside and space.module is not None:
            unfit[name] = "acts on layers, which are not known in a module"
        elif method.needs_concave and not space.likelihood.is_concave:
            unfit[name] = f"has no closed form under the likelihood '{space.likelihood.name}'"
        else:
            tuned[name] = method.tuned
    if names is None:
        return [name for name, how in tuned.items() if how.is_tried and name != "map"]
    for name in names:
        METHODS.find(name, "--methods")
        if name not in tuned or name == "map":
            others = [other for other in tuned if other != "map"]
            why = "is always tried, as what teachers are compared with"
            if name != "map":
                why = unfit.get(name, "says nothing of how it is tuned")
            raise ConfigError(f"--methods: found '{name}', which {why}{nearest('', others)}")
    return list(dict.fromkeys(names))


@dataclass(eq=False)
class _Tuning:
    """One call.

    Attributes:
        space, session, told: as in ``tune_teacher``.
        held_out: where candidates are compared.
        record: what is there, and grows.
        effort: of a candidate, before draws.
        methods: to choose from.
        clock: how long it may take.
    """

    space: SearchSpace
    held_out: HeldOut
    record: Record
    effort: Effort
    methods: list[str]
    clock: Clock
    session: Session
    told: Callable[[Tried, int], None]

    def try_all(self, n_trials: int | None) -> None:
        """Try candidates until there are enough, or the time is over.

        Raises:
            Interrupted: the session said stop.
        """
        session = replace(self.session, streams=self.record.streams, should_stop=self._should_stop)
        # out of time, or stopped: the latter is told below
        with contextlib.suppress(Interrupted):
            while self.clock.has_time(self.record):
                num_teachers = sum(not tried.is_map for tried in self.record.tried)
                start = map_start(self.record, self.space.baseline.precisions)
                if self._must_try_a_teacher():
                    start = None
                elif needs_evidence(self.record, start):
                    self._ask_evidence(session)
                    continue
                if start is None and n_trials is not None and num_teachers >= n_trials:
                    break
                self._try(start or teacher_start(self.record, self.methods), session)

        self.session.raise_if_stopped()
        self.record.drop_streams()

    def _must_try_a_teacher(self) -> bool:
        """Whether MAP networks have had half of the budget, and no teacher is there yet."""
        has_network = self.record.best(is_map=True) is not None
        has_teacher = any(not tried.is_map for tried in self.record.tried)
        return has_network and not has_teacher and self.clock.is_half_over()

    def _ask_evidence(self, session: Session) -> None:
        """Note the prior precision that the evidence of the best MAP network asks for."""
        best = self.record.best(is_map=True)
        assert best is not None, "there are MAP networks"
        fold = self.held_out.folds[0]
        networks = candidate_of(best[1]).teacher(self.space, fold, session)
        problem = posterior(self.space, fold, device=session.device)

        precision = float(best[1].prior["precision"])
        if problem.network is not None and problem.network.last_layer is not None:
            generator = rng.generator(self.space.seed, "tune", "evidence")
            precision = evidence_precision(problem, networks.stream.theta(0), generator=generator)
        bounded = min(max(precision, LOWEST_PRECISION), HIGHEST_PRECISION)
        self.record.evidence = three_digits(bounded)
        self.record.write()

    def _should_stop(self) -> bool:
        has_time = self.clock.has_time(self.record) and not self.clock.is_too_long()
        return self.session.should_stop() or not has_time

    def _try(self, start: Start | None, session: Session) -> None:
        """Try one candidate, and note it."""
        proposal, drawn = None, None
        if start is not None and start.method == SHIPPED:
            candidate = Candidate(self.space.method, self.space.prior)
        elif start is not None and start.method == "map":
            usual = UsualDraw(start.drawn)
            candidate, drawn = self._candidate(usual, "map"), usual.drawn
        else:
            proposal = self._propose(start)
            candidate = self._candidate(UsualDraw(_unprefixed(proposal)), proposal.method)

        climb = _Climb(self.record, self.held_out, candidate)
        began = self.clock.begin_candidate()
        try:
            state, reason = climb.climb(self.space, session)
        except Interrupted:
            if self.session.should_stop() or not self.clock.is_too_long():
                raise
            state, reason = "failed", "it took more than its share of the budget"
        except (DivergenceError, ConfigError) as error:
            state, reason = "failed", str(error)

        method = candidate.method.model_dump(mode="json")
        tried = Tried(
            label="" if start is None else start.label,
            method=method,
            prior={"name": "gaussian", **candidate.prior.to_json()},
            state=state,  # type: ignore[arg-type]
            values=tuple(climb.values),
            seconds=time.monotonic() - began,
            reason=reason,
            proposal=None if proposal is None else proposal.to_json(),
            drawn=drawn,
            single=climb.single,
            sampling_s=climb.sampling_s,
            verdict=climb.verdict,
        )
        self.record.add(tried, climb.losses)
        self.told(tried, len(self.record.tried) - 1)

    def _propose(self, start: Start | None) -> Proposal:
        """What a start says, or what TPE draws."""
        fixed: Mapping[str, Any] | None = None
        if start is not None:
            usual = UsualDraw(start.drawn)
            self._draw(usual, start.method)
            fixed = {f"{start.method}.{name}": value for name, value in usual.drawn.items()}
            fixed = {"method": start.method, **fixed}

        ended = [tried.ended() for tried in self.record.tried]
        return propose(
            [trial for trial in ended if trial is not None],
            methods=self.methods,
            draw=self._draw,
            start=fixed,
            seed=self.space.seed,
        )

    def _draw(self, draw: Draw | TrialDraw, method: str) -> tuple[Prior, Mapping[str, Any]]:
        """A prior and the settings of a method."""
        tuned = METHODS[method].tuned
        assert tuned is not None, "only methods that are tuned are drawn"
        precision = draw.scale("precision", LOWEST_PRECISION, HIGHEST_PRECISION, usual=1.0)
        by_kind = {}
        for kind in self._kinds[1:]:
            factor = draw.scale(f"precision_of_{kind}", 0.01, 100, usual=1)
            by_kind[kind] = three_digits(precision * factor)

        prior: Prior = GaussianPrior(precision=precision)
        if set(by_kind.values()) - {precision}:
            prior = LayeredGaussianPrior.model_validate({self._kinds[0]: precision, **by_kind})
        return prior, tuned.settings(draw, self.effort)

    @cached_property
    def _kinds(self) -> list[str]:
        """The kinds of layers that the teacher's network has."""
        shapes = stream_key(self.space, self.held_out.folds[0]).shapes
        return sorted({layer_kind(name, shapes) for name in shapes}, reverse=True)

    def _candidate(self, draw: Draw, method: str) -> Candidate:
        prior, settings = self._draw(draw, method)
        cfg = parse_method({"name": method, **settings}, f"tuned {method}")
        return Candidate(cfg, prior)


def _unprefixed(proposal: Proposal) -> dict[str, Any]:
    prefix = f"{proposal.method}."
    return {name.removeprefix(prefix): value for name, value in proposal.params.items()}


@dataclass(eq=False)
class _Climb:
    """A candidate on its rungs.

    Attributes:
        record: of those before it.
        held_out: the folds.
        candidate: who climbs.
        losses: of each example, by rung.
        singles: of each example, the mean over single networks by MAP, by fold.
        values: mean loss over all folds so far, by rung.
        single, sampling_s, verdict: as in ``Tried``.
    """

    record: Record
    held_out: HeldOut
    candidate: Candidate

    def __post_init__(self) -> None:
        self.losses: list[Floats] = []
        self.singles: list[Floats] = []
        self.values: list[float] = []
        self.single: float | None = None
        self.sampling_s = 0.0
        self.verdict = ""

    def climb(self, space: SearchSpace, session: Session) -> tuple[str, str]:
        """Climb all rungs, or fall behind: the state and the reason.

        Raises:
            DivergenceError, ConfigError: it cannot be sampled.
            Interrupted: the session said stop.
        """
        for number, rung in enumerate(self.held_out.rungs):
            fold = self.held_out.folds[rung.fold]
            teacher = self.candidate.teacher(space, fold, session, is_whole=rung.is_whole)
            self.losses.append(self.candidate.losses(teacher))
            value = float(np.concatenate(self._whole_losses()).mean())
            if not np.isfinite(value):
                return "failed", "it gave a label no probability"
            self.values.append(value)

            if rung.is_whole and self.candidate.method.name in ("map", "deep_ensemble"):
                self.singles.append(losses_by_sample(teacher).mean(axis=0))
            if rung == self.held_out.rungs[1]:
                self.sampling_s = teacher.stream.sampling_seconds
                if not self.candidate.is_map:
                    self.verdict = judge(diagnose(teacher)).level
            behind = self._behind(number)
            if behind:
                return "pruned", behind

        if self.singles:
            self.single = float(np.concatenate(self.singles).mean())
        return "complete", ""

    def _whole_losses(self) -> list[Floats]:
        """Losses by fold: those of all samples, where they are known."""
        return self.losses[-1:] if len(self.losses) <= 2 else self.losses[1:]

    def _behind(self, number: int) -> str:
        """Why it is given up after a rung; empty where it is not."""
        best = self.record.best(is_map=self.candidate.is_map)
        if best is None:
            return ""

        first = max(0, number if number < 2 else 1)
        theirs = []
        for rung in range(first, number + 1):
            theirs.append(self.record.losses(best[0], rung, len(self.losses[rung])))
        best_N = np.concatenate(theirs)
        difference_N = np.concatenate(self.losses[first : number + 1]) - best_N
        error = float(difference_N.std(ddof=1)) / len(difference_N) ** 0.5
        mean = float(difference_N.mean())
        if mean <= _BEHIND * error + _ALIKE * abs(float(best_N.mean())):
            return ""
        return f"{mean:.4f} behind the best one after {number + 1} of its rungs"
