"""The end of a tuning: the best candidate built on all training data, beside MAP on validation.

Nothing was chosen on validation, so the comparison there favors nobody. MAP is several networks of
the best settings, one a seed: the difference is of their mean, paired in examples, over both.

What was held out has no say in it, though it is often larger: the best of many candidates was
chosen there, so its figure there is too good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gped_nas.api.diagnosis import diagnose
from gped_nas.api.held_out import (
    FINAL_SEEDS,
    Candidate,
    HeldOut,
)
from gped_nas.api.prediction_verdict import ADVICE, beside_seeds, grade
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher
from gped_nas.api.tuning_record import Record, Tried
from gped_nas.api.verdict import judge
from gped_nas.config import dump_yaml
from gped_nas.data.base import Dataset
from gped_nas.errors import GateError
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.teacher import averaged
from gped_nas.models.base import num_params
from gped_nas.posterior.base import parse_method
from gped_nas.posterior.priors import PRIORS
from gped_nas.search.space import SearchSpace

_TRAINING = ("steps", "lr", "batch_size")
NO_TEACHER = "no teacher found beats MAP here: train on labels"


@dataclass(frozen=True, eq=False)
class TeacherTuning:
    """What came out of a tuning.

    Attributes:
        space: the space with the tuned teacher.
        tried: all candidates, in the order in which they ended.
        answer: what was found, as plain data.
    """

    space: SearchSpace
    tried: tuple[Tried, ...]
    answer: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """What was found, in one sentence."""
        return str(self.answer["sentence"])

    @property
    def yaml(self) -> str:
        """The teacher's block, ready to be pasted into a space."""
        return dump_yaml({"teacher": self.answer["teacher"]})

    def to_json(self) -> dict[str, Any]:
        """Plain data: the answer, and all candidates."""
        candidates = []
        for number, tried in enumerate(self.tried):
            candidates.append(
                {
                    "candidate": number,
                    "start": tried.label,
                    "method": dict(tried.method),
                    "prior": dict(tried.prior),
                    "state": tried.state,
                    "held_out_nll": tried.values[-1] if tried.values else None,
                    "verdict": tried.verdict or None,
                    "seconds": tried.seconds,
                    "reason": tried.reason,
                }
            )
        return {**self.answer, "candidates": candidates}


def conclude_tuning(
    space: SearchSpace, dataset: Dataset, held_out: HeldOut, record: Record, session: Session
) -> TeacherTuning:
    """Build the best candidate on all training data, compare it with MAP, note the answer.

    Args:
        space: whose teacher was tuned.
        dataset: its dataset.
        held_out: where candidates were compared.
        record: gets the answer.
        session: how to run; the teacher's stream lies where ``run`` looks for it.

    Raises:
        GateError: no candidate came to its end.
        Interrupted: the session said stop.
    """
    best, best_map = record.best(is_map=False), best_of_map(record)
    if best is None or best_map is None:
        raise GateError(
            "no candidate came to its end in this time; give --budget more, and the same command "
            "goes on"
        )

    tuned = candidate_of(best[1])
    teacher = tuned.teacher(space, dataset, session)
    networks = _map_candidate(best_map[1]).teacher(space, dataset, session)
    difference, of_teacher, of_map = beside_seeds(
        teacher, teacher.averaged("validation"), _alone(networks)
    )
    level, outcome = grade(difference.interval)
    posterior = judge(diagnose(teacher))

    block = _block(space, best[1])
    sampling_s = teacher.stream.sampling_seconds
    size = num_params(teacher.stream.key.shapes)
    num_samples = teacher.stream.num_samples
    seconds = sum(tried.seconds for tried in record.tried)
    answer = {
        "space": space.name,
        "teacher": block,
        "held_out": {
            "what": held_out.text,
            "n": held_out.n,
            "nll": best[1].value,
            "nll_of_map": best_map[1].single,
        },
        "validation": {
            "n": difference.n,
            "nll": of_teacher,
            "nll_of_map": float(of_map.values_K.mean()),
            "nll_of_map_by_seed": of_map.values_K.tolist(),
            "difference": difference.value,
            "interval": None if difference.interval is None else list(difference.interval),
            "why": difference.why,
        },
        "map": {
            "prior": dict(best_map[1].prior),
            **{key: best_map[1].method[key] for key in _TRAINING},
        },
        "beats_map": level == "better",
        "verdict": {"level": posterior.level, "sentence": posterior.sentence},
        "prediction_verdict": {"level": level, "sentence": ""},
        "costs": {
            "num_samples": num_samples,
            "params": size * num_samples,
            "storage_bytes": 4 * size * num_samples,
            "sampling_seconds": sampling_s,
            "tuning_seconds": seconds,
            "candidates": len(record.tried),
        },
        "device": str(session.device),
    }
    sentence = _sentence(answer, best[1], outcome)
    answer["sentence"] = sentence
    answer["prediction_verdict"] = {"level": level, "sentence": sentence}
    record.answer = answer
    record.write()
    return TeacherTuning(tuned_space_of(space, best[1]), tuple(record.tried), answer)


def best_of_map(record: Record) -> tuple[int, Tried] | None:
    """The candidate whose single networks by MAP are best: a MAP one, or members of an ensemble."""
    scores: dict[int, float] = {}
    for number, tried in enumerate(record.tried):
        is_plain = tried.is_map or tried.method.get("regularizer") == "prior"
        if tried.state == "complete" and tried.single is not None and is_plain:
            scores[number] = tried.single
    if not scores:
        return None
    best = min(scores, key=lambda number: scores[number])
    return best, record.tried[best]


def candidate_of(tried: Tried) -> Candidate:
    """A candidate that ended, to be sampled again."""
    prior = PRIORS[tried.prior["name"]](**tried.prior)
    return Candidate(parse_method(dict(tried.method), "tuned teacher"), prior)


def _map_candidate(tried: Tried) -> Candidate:
    """MAP networks with the settings of a candidate."""
    settings = {key: tried.method[key] for key in _TRAINING}
    return Candidate(
        parse_method({"name": "map", **settings}, "tuned map"),
        candidate_of(tried).prior,
        map_seeds=FINAL_SEEDS,
    )


def _alone(networks: Teacher) -> list[AnyPredictions]:
    """What each network says of validation by itself."""
    predicted = networks.predicted("validation")
    unit = networks.dataset.label_normalization
    return [averaged(row[None], predicted.new_ones(1), unit) for row in predicted]


def _sentence(answer: Mapping[str, Any], best: Tried, outcome: str) -> str:
    """What was found, for people."""
    validation, costs = answer["validation"], answer["costs"]
    cost = (
        f"{costs['num_samples']} networks of {costs['params'] // costs['num_samples']:,} "
        f"parameters, sampled in {costs['sampling_seconds']:.3g} s"
    )
    numbers = (
        f"NLL {validation['nll']:.4f} against {validation['nll_of_map']:.4f} on validation, mean "
        f"of {FINAL_SEEDS} seeds ({_difference(validation)})"
    )
    end = ADVICE["better"] if answer["beats_map"] else NO_TEACHER
    relation = outcome or "not compared with"
    return (
        f"{best.name}, {cost}, predicts {relation} one tuned MAP network of its size: "
        f"{numbers}; {end}."
    )


def _difference(data: Mapping[str, Any]) -> str:
    """A difference with its interval and n."""
    value, n = f"{data['difference']:+.4f}", f"n = {data['n']:,}"
    if data["interval"] is None:
        return f"{value}, {n}, no interval is known: {data['why']}"
    low, high = data["interval"]
    return f"{value} [{low:.4f}, {high:.4f}], {n}"


def _block(space: SearchSpace, tried: Tried) -> dict[str, Any]:
    """The teacher's block of a space, without settings that have their default."""
    candidate = candidate_of(tried)
    block = dict(space.resolved["teacher"])
    method = candidate.method.model_dump(mode="json", exclude_defaults=True)
    block["method"] = {"name": candidate.method.name, **method}
    block["prior"] = candidate.prior.to_json()
    block.pop("calibration", None)  # it was of the space's own teacher
    return block


def tuned_space_of(space: SearchSpace, tried: Tried) -> SearchSpace:
    """The space with a candidate for its teacher."""
    from gped_nas.api.tuned import with_teacher

    return with_teacher(space, _block(space, tried))
