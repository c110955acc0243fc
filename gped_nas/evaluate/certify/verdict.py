"""What is known of an input's answer in a box: certified, broken or unknown.

* *certified*: the answer is the label, and bounds prove that it is at every input of the box.
* *broken*: an input of the box is at hand that the network, asked there, answers wrongly. An input
  whose own answer is wrong is broken at any radius.
* *unknown*: neither.

Every input is one of them, so that their shares sum to 1, and more work can only make fewer
unknown.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from gped_nas.errors import GpedError
from gped_nas.evaluate.certify.bounds import Bounds
from gped_nas.evaluate.certify.box import Box
from gped_nas.evaluate.certify.breaking import Attack, inward, is_wrong, look_for_breaks
from gped_nas.evaluate.certify.closing import close_bracket
from gped_nas.evaluate.certify.exact import ExactSettings
from gped_nas.evaluate.certify.networks import CertifiableNetwork, margins
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.predictions import Labels

Verdict = Literal["certified", "broken", "unknown"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
CERTIFIED, BROKEN, UNKNOWN = VERDICTS


@dataclass(eq=False)
class Judged:
    """What is known of N inputs.

    Attributes:
        verdict_N: one of ``VERDICTS`` each.
        lead_N: how far the label's logit is above every other one in the whole box, at least.
        inputs: (N, *input_shape) float32: where an input is broken, the one of its box that is
            answered wrongly; the input itself otherwise.
        seconds: what ``bounds``, ``attack`` and ``exact`` took, all inputs together.
        notes: what a reader must know, a sentence each.
    """

    verdict_N: NDArray[np.str_]
    lead_N: NDArray[np.float64]
    inputs: Tensor
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def share(self, verdict: Verdict) -> float:
        """Of all inputs; those of the three verdicts sum to 1."""
        return float((self.verdict_N == verdict).mean())

    def places(self, verdict: Verdict) -> NDArray[np.int64]:
        """Which inputs have this verdict."""
        places: NDArray[np.int64] = (self.verdict_N == verdict).nonzero()[0]
        return places


def judge(
    network: CertifiableNetwork,
    predictor: Predictor,
    raw: Tensor,
    labels: Labels,
    box: Box,
    *,
    generator: Generator,
    bounds: Bounds = "crown",
    attack: Attack = "worst",
    exact: ExactSettings | None = None,
) -> Judged:
    """The verdict of each input of a classifier.

    Args:
        network: as layers, which bounds are carried through.
        predictor: the same network as it answers.
        raw: inputs (N, *input_shape), each in its box.
        labels: their classes, (N,).
        box: what each input may become.
        generator: of what the attack draws.
        bounds: what proves.
        attack: what looks for inputs that break answers, where bounds prove nothing.
        exact: how a mixed-integer programme decides what both leave unknown; none does by default.

    Raises:
        ConfigError: the network has no bounds of this kind, or no exact ones.
        DataError: the predictor draws while it answers.
        GpedError: bounds prove what an answer contradicts: a fault of the program.
    """
    label_N = torch.as_tensor(labels, dtype=torch.int64)
    began = time.monotonic()
    margin_NC = margins(network, box.low, box.high, label_N, bounds=bounds)
    seconds = time.monotonic() - began

    lead_N = least_lead(margin_NC, label_N)
    judged = judge_by_lead(lead_N, predictor, raw, labels, box, generator=generator, attack=attack)
    judged.seconds = {"bounds": seconds, **judged.seconds}

    if exact is not None:
        with _timed(judged, "exact"):
            _close(judged, network, predictor, box, label_N, margin_NC, exact)
    return judged


def judge_by_lead(
    lead_N: Tensor,
    predictor: Predictor,
    raw: Tensor,
    labels: Labels,
    box: Box,
    *,
    generator: Generator,
    attack: Attack = "worst",
) -> Judged:
    """The verdict of each input, given by how far the label leads in its whole box.

    Args:
        lead_N: lower bounds; above 0 an input is certified.
        predictor: who answers. Of a teacher the few samples are attacked that it names, and
            whoever answers is asked about what they found.
        raw, labels, box, generator, attack: as of ``judge``.

    Raises:
        DataError, GpedError: as ``judge``.
    """
    label_N = torch.as_tensor(labels, dtype=torch.int64)
    judged = Judged(np.full(len(raw), UNKNOWN, "<U9"), lead_N.numpy(), inward(box, raw))
    judged.verdict_N[judged.lead_N > 0] = CERTIFIED
    with _timed(judged, "attack"):
        _take_wrong(judged, predictor, label_N)
        _attack(judged, predictor, box, label_N, attack, generator)
    return judged


def _take_wrong(judged: Judged, predictor: Predictor, label_N: Tensor) -> None:
    """Inputs that are answered wrongly as they are."""
    if not len(label_N):
        return
    is_wrong_N = is_wrong(predictor, judged.inputs, label_N).numpy()
    contradicted = is_wrong_N & (judged.verdict_N == CERTIFIED)
    if contradicted.any():
        raise GpedError(
            f"input {int(contradicted.argmax())}: bounds prove the label "
            f"{int(label_N[int(contradicted.argmax())])} in its box, and the network answers "
            "otherwise there; this is a fault of the program: please report it"
        )
    judged.verdict_N[is_wrong_N] = BROKEN


def _attack(
    judged: Judged,
    predictor: Predictor,
    box: Box,
    label_N: Tensor,
    attack: Attack,
    generator: Generator,
) -> None:
    """Attack the inputs that are unknown."""
    places = torch.from_numpy(judged.places(UNKNOWN))
    if not len(places) or attack == "none":
        return
    some = Box(box.low[places], box.high[places])
    attacked = getattr(predictor, "attacked", None) or predictor
    inputs, notes = look_for_breaks(attacked, some, label_N[places], attack, generator)
    judged.notes += notes

    # what an attack says of itself is not believed: the answer is asked for, and the box looked at
    is_broken = is_wrong(predictor, inputs, label_N[places]) & some.holds(inputs)
    broken = places[is_broken]
    judged.verdict_N[broken.numpy()] = BROKEN
    judged.inputs[broken] = inputs[is_broken]


def _close(
    judged: Judged,
    network: CertifiableNetwork,
    predictor: Predictor,
    box: Box,
    label_N: Tensor,
    margin_NC: Tensor,
    exact: ExactSettings,
) -> None:
    """Decide the inputs that are still unknown, one after the other."""
    num_large = num_late = 0
    for place in judged.places(UNKNOWN).tolist():
        here = slice(place, place + 1)
        closed = close_bracket(
            network,
            predictor,
            Box(box.low[here], box.high[here]),
            label_N[here],
            margin_NC[place],
            exact,
        )
        num_large += closed.is_too_large
        num_late += closed.is_timed_out
        judged.lead_N[place] = max(judged.lead_N[place], closed.lead)
        if closed.broken_by is not None:
            judged.verdict_N[place] = BROKEN
            judged.inputs[place] = closed.broken_by[0]
        elif closed.lead > 0:
            judged.verdict_N[place] = CERTIFIED

    if num_large:
        judged.notes.append(
            f"{num_large} inputs have more than {exact.max_unstable} unstable units and were not "
            "tried exactly"
        )
    if num_late:
        judged.notes.append(
            f"{num_late} inputs were not decided exactly in {exact.time_limit:g} seconds each"
        )


def least_lead(margin_NC: Tensor, label_N: Tensor) -> Tensor:
    """The least margin to another class, (N,)."""
    return margin_NC.scatter(1, label_N[:, None], torch.inf).amin(1)


@contextmanager
def _timed(judged: Judged, stage: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    judged.seconds[stage] = time.monotonic() - began
