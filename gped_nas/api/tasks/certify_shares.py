"""Rows of the task ``certify``: shares of inputs, or means of shares of samples over inputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gped_nas.api.certify_names import CertifyName, Word
from gped_nas.api.tasks.base import Row
from gped_nas.api.tasks.bench import Bench, Subject
from gped_nas.evaluate.certify.verdict import BROKEN, CERTIFIED, UNKNOWN, VERDICTS, Judged
from gped_nas.evaluate.intervals import around, of_share
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.evaluate.predictions import Floats


def rows_of_verdicts(
    bench: Bench, subject: Subject, name: CertifyName, word: Word, judged: Judged, of: str
) -> list[Row]:
    """A row a verdict: its share of the inputs.

    Args:
        bench: whose examples were judged.
        subject: who answers.
        name: what was asked for.
        word: the bounds.
        judged: what is known.
        of: who it is of: ``network`` or ``average``.
    """
    took = dict(judged.seconds)
    attack = took.pop("attack")
    proof = sum(took.values())
    seconds = {CERTIFIED: proof, BROKEN: attack, UNKNOWN: proof + attack}
    about = {**_about(bench, name, word), "of": of}
    if judged.notes:
        about["note"] = "; ".join(judged.notes)

    table: list[Row] = []
    for verdict in VERDICTS:
        hits_N = (judged.verdict_N == verdict).astype(np.float64)
        ends = of_share(hits_N)
        measured = Measured(float(hits_N.mean()), ends.low, ends.high, len(hits_N))
        key = Key(verdict, name.under(word), bench.part)
        row = {"seconds": round(seconds[verdict], 4), **about}
        if verdict == CERTIFIED:
            row["each"] = {
                **_places(bench),
                "verdict": judged.verdict_N.tolist(),
                "lead": [_short(lead) for lead in judged.lead_N],
            }
        table += bench.rows(subject, {key: measured}, **row)
    return table


def rows_of_shares(
    bench: Bench,
    subject: Subject,
    name: CertifyName,
    word: Word,
    shares: tuple[Floats, Floats],
    *,
    of: str,
    seconds: float,
    why: str = "",
    **about: Any,
) -> list[Row]:
    """A row a verdict: the mean over the inputs of a share of samples.

    Args:
        bench, subject, name, word: as of ``rows_of_verdicts``.
        shares: that are certified, and that are broken, of each input.
        of: who they are of: ``samples`` or ``law``.
        seconds: that it took.
        why: why there is no interval over examples; empty where there is one.
        about: what else rows say.
    """
    certified_N, broken_N = shares
    by_verdict = {CERTIFIED: certified_N, BROKEN: broken_N, UNKNOWN: 1 - certified_N - broken_N}
    more = {**_about(bench, name, word), "of": of, "seconds": round(seconds, 4), **about}

    table: list[Row] = []
    for verdict, share_N in by_verdict.items():
        share_N = np.clip(share_N, 0.0, 1.0)  # what was rounded in a sum of weights
        mean = float(share_N.mean())
        measured = Measured(mean, n=len(share_N), why=why)
        if not why:
            (ends,) = around(np.array([mean]), share_N[:, None], bench.resamples)
            measured = Measured(mean, ends.low, ends.high, len(share_N), ends.why)
        row = dict(more)
        if verdict == CERTIFIED:
            columns = {each: [_short(share) for share in by_verdict[each]] for each in VERDICTS}
            row["each"] = {**_places(bench), **columns}
        key = Key(verdict, f"{name.under(word)} {of}", bench.part)
        table += bench.rows(subject, {key: measured}, **row)
    return table


def _about(bench: Bench, name: CertifyName, word: Word) -> dict[str, Any]:
    radius = f"epsilon {bench.dataset.scale.describe(name.epsilon)}"
    return {"epsilon": name.epsilon, "radius": radius, "bounds": word}


def _places(bench: Bench) -> Mapping[str, list[Any]]:
    """Which inputs of the part they are, and their labels."""
    index = bench.examples.index
    places = range(len(bench.labels)) if index is None else index.tolist()
    return {"index": list(places), "label": np.asarray(bench.labels).tolist()}


def _short(number: float) -> float | None:
    """A number with six digits; None of one that is not finite, which JSON has no word for."""
    return float(f"{number:.6g}") if np.isfinite(number) else None
