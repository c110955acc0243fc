"""Measuring predictors under the conditions of a space, beside the teacher at the same inputs."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from torch import Tensor

from gped_nas import rng
from gped_nas.api.running import Running
from gped_nas.api.teacher import Teacher
from gped_nas.data.base import Part
from gped_nas.errors import ConfigError
from gped_nas.evaluate.attacks.settings import AttackSettings
from gped_nas.evaluate.base import METRICS, Metric, Resamples, draw_resamples
from gped_nas.evaluate.certify.radius import certificate_metrics, predict_proven, states_radius
from gped_nas.evaluate.conditions import Condition, Forward, Predictor
from gped_nas.evaluate.judging import evaluate, is_finite_for
from gped_nas.evaluate.measured import CLEAN, Key, Measured, parse_name
from gped_nas.evaluate.outside import Inside, Outside, detection_labels
from gped_nas.evaluate.predictions import AnyPredictions, Labels, joined
from gped_nas.evaluate.teacher import Ensemble
from gped_nas.io import sha256_arrays
from gped_nas.models.labels import COSTS
from gped_nas.search.objectives import asked_metrics, outside_metrics

MOST_ATTACKED = 20
"""Posterior samples of a teacher that are attacked together, at most."""

Evaluate = Callable[..., dict[Key, Measured]]
"""``evaluate`` or ``evaluate_or_explain``."""


@dataclass(frozen=True, eq=False)
class Detection:
    """What a predictor says of inputs inside, and then of inputs from outside.

    Attributes:
        predictions: of N + M inputs.
        labels: 0 inside, 1 outside.
        resamples: bootstrap draws of all of them.
    """

    predictions: AnyPredictions
    labels: Labels
    resamples: Resamples


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of a study's space.

    A condition makes the inputs at which a predictor is judged. The teacher that it is compared
    with is judged at the same ones. Draws of a condition are the same for every predictor.

    Attributes:
        teacher: of the study.
    """

    teacher: Teacher
    _resamples: dict[tuple[Part, int], Resamples] = field(default_factory=dict)
    _at_inputs: dict[tuple[str, Part], tuple[str, AnyPredictions]] = field(default_factory=dict)
    _made: "WeakKeyDictionary[Predictor, dict[tuple[str, Part], Tensor]]" = field(
        default_factory=WeakKeyDictionary
    )

    @property
    def changed(self) -> list[Condition]:
        """All conditions but the clean one."""
        conditions = self.teacher.space.conditions
        return [condition for condition in conditions if condition.name != CLEAN]

    def asked(self, condition: str = CLEAN) -> frozenset[str]:
        """Metrics that the space's objectives and constraints name under a condition.

        Within a radius they are all that are measured.
        """
        if states_radius(self.named(condition)):
            return certificate_metrics()
        return asked_metrics(self.teacher.space.goal_names, condition)

    def outside(self, name: str) -> Outside:
        """The out-of-distribution set of the space that is called so."""
        (outside,) = (each for each in self.teacher.space.outside if each.name == name)
        return outside

    def named(self, name: str) -> Condition:
        """The condition of the space that is called so."""
        (condition,) = (each for each in self.teacher.space.conditions if each.name == name)
        return condition

    def asked_outside(self, outside: Outside) -> frozenset[str]:
        """The metrics that are measured at an out-of-distribution set."""
        return outside_metrics(self.teacher.space.goal_names, outside)

    def measure(
        self,
        predictor: Predictor,
        part: Part,
        *,
        resamples: Resamples,
        is_compared: bool = True,
        evaluate: Evaluate = evaluate,
        asked: Collection[str | Metric] = (),
    ) -> dict[Key, Measured]:
        """The measures of a predictor under every condition but the clean one, and at every set.

        Args:
            predictor: who is judged.
            part: where.
            resamples: bootstrap draws of the part.
            is_compared: whether it is compared with the teacher, which needs the teacher's weights;
                metrics that compare are left out where these are not known.
            evaluate: what makes measures of predictions; ``evaluate_or_explain`` for references.
            asked: metrics that are wanted beside those of always and those that objectives and
                constraints name.

        Raises:
            DataError: a condition made inputs that cannot be used.
            DivergenceError: a metric is not finite, if ``evaluate`` raises that.
            Interrupted: the session said stop.
        """
        labels = self.teacher.dataset.labels(part)

        measures: dict[Key, Measured] = {}
        for condition in self.changed:
            if states_radius(condition):
                measures |= self._certificates(
                    predictor, part, condition, resamples=resamples, evaluate=evaluate
                )
                continue

            judged = asked_under(predictor, condition)
            raw = self._inputs(condition, judged, part)
            predictions = judged.predict(raw)
            teacher = self._teacher_at(raw, condition, part) if is_compared else None
            measures |= evaluate(
                predictions,
                labels,
                teacher,
                resamples=resamples,
                condition=condition.name,
                part=part,
                asked=[*self.asked(condition.name), *asked],
            )
        for outside in self.teacher.space.outside:
            detection = self.detect(predictor, part, outside)
            measures |= evaluate(
                detection.predictions,
                detection.labels,
                resamples=detection.resamples,
                condition=outside.name,
                part=part,
                asked=self.asked_outside(outside),
                task="ood",
            )
        return measures

    def _certificates(
        self,
        predictor: Predictor,
        part: Part,
        condition: Condition,
        *,
        resamples: Resamples,
        evaluate: Evaluate,
    ) -> dict[Key, Measured]:
        """The measures within a radius; none of who is no network whose layers are known."""
        return evaluate(
            self._proven(predictor, part, condition),
            self.teacher.dataset.labels(part),
            resamples=resamples,
            condition=condition.name,
            part=part,
            asked=certificate_metrics(),
            task="certificate",
        )

    def _proven(self, predictor: Predictor, part: Part, condition: Condition) -> AnyPredictions:
        dataset = self.teacher.dataset
        raw, labels = dataset.raw(part), dataset.labels(part)
        return predict_proven(predictor, raw, labels, condition, dataset.scale)

    def detect(self, predictor: Predictor, part: Part, outside: Outside) -> Detection:
        """What a predictor says of a part and then of an out-of-distribution set.

        Raises as ``measure``.
        """
        dataset, seed = self.teacher.dataset, self.teacher.space.seed
        inside = Inside(dataset, part, dataset.raw(part), dataset.labels(part), seed)
        predictor = asked_under(predictor, outside.condition)
        raw = outside.inputs(inside, predictor)
        predictions = joined(predictor.predict(inside.raw), predictor.predict(raw))
        if (part, len(predictions)) not in self._resamples:
            self._resamples[part, len(predictions)] = draw_resamples(
                len(predictions), root=seed, part=f"{part} and outside"
            )
        return Detection(
            predictions,
            detection_labels(len(inside.raw), len(raw), is_real=dataset.task == "regression"),
            self._resamples[part, len(predictions)],
        )

    def predict(
        self, predictor: Predictor, part: Part, name: str
    ) -> tuple[AnyPredictions, AnyPredictions | None]:
        """What a predictor and the teacher say of a part under the condition of this name.

        The teacher's are None where its weights would be needed and are not known.

        Raises as ``measure``.
        """
        if name == CLEAN:
            return predictor.predict(self.teacher.dataset.raw(part)), self.teacher.averaged(part)

        condition = self.named(name)
        if states_radius(condition):
            return self._proven(predictor, part, condition), None
        predictor = asked_under(predictor, condition)
        raw = self._inputs(condition, predictor, part)
        return predictor.predict(raw), self._teacher_at(raw, condition, part)

    def _inputs(self, condition: Condition, predictor: Predictor, part: Part) -> Tensor:
        """The raw inputs of a part under a condition; its draws are the same on every call.

        They are made once for each predictor: an attack is dear.
        """
        made = self._made.setdefault(predictor, {})
        key = (condition.name, part)
        if key not in made:
            made[key] = self._make_inputs(condition, predictor, part)
        return made[key]

    def _make_inputs(self, condition: Condition, predictor: Predictor, part: Part) -> Tensor:
        dataset, seed = self.teacher.dataset, self.teacher.space.seed
        return condition.apply(
            dataset.raw(part),
            predictor=predictor,
            labels=dataset.labels(part),
            generator=rng.generator(seed, "condition", condition.name, part),
            scale=dataset.scale,
        )

    def _teacher_at(self, raw: Tensor, condition: Condition, part: Part) -> AnyPredictions | None:
        """The teacher's average at these inputs; None where its weights are not known.

        The last answer is kept: a shift gives every predictor the same inputs.
        """
        if not self.teacher.stream.has_weights:
            return None

        if self.teacher.running is not None:
            return self.teacher.running.at_raw(raw)

        digest = sha256_arrays(raw.numpy())
        last_digest, answer = self._at_inputs.get((condition.name, part), ("", None))
        if answer is None or last_digest != digest:
            answer = ensemble(self.teacher).predict(raw)
            self._at_inputs[condition.name, part] = digest, answer
        return answer


def check_finite(teacher: Teacher, names: Sequence[str], where: str) -> None:
    """Refuse metrics that compare with the teacher and have no finite value for any student.

    Args:
        teacher: with its predictions on validation.
        names: of objectives and constraints.
        where: their keys, for messages.

    Raises:
        ConfigError: for the teacher itself such a metric is not finite.
    """
    average, labels = teacher.averaged("validation"), teacher.dataset.labels("validation")
    for name in names:
        if name in COSTS:
            continue
        metric = METRICS[parse_name(name).metric]
        if not is_finite_for(metric, average, labels):
            why = metric.undefined or "the teacher gives some validation labels no probability"
            raise ConfigError(
                f"{where}: found '{name}', but it has no finite value for any student: {why}; "
                "choose another metric, such as 'nll'"
            )


def can_be_asked(teacher: Teacher) -> bool:
    """Whether a teacher's networks are at hand, to be asked at any inputs."""
    module = teacher.space.module
    is_built = module is None or module.is_bound
    return teacher.stream.has_weights and teacher.running is None and is_built


def is_attack(condition: Condition | None) -> bool:
    """Whether a condition is an attack, whose inputs are found by asking networks."""
    return condition is not None and isinstance(condition.chosen, AttackSettings)


def asked_under(predictor: Predictor, condition: Condition | None) -> Predictor:
    """Who is asked under a condition: an attack takes a few samples of a teacher that has many."""
    attacked = getattr(predictor, "attacked", None)
    return attacked if attacked is not None and is_attack(condition) else predictor


def attacked_samples(teacher: Teacher) -> tuple[int, ...] | None:
    """Which posterior samples are attacked, evenly spaced; None where they are so few that all."""
    having_weight = teacher.stream.weight_S.nonzero().squeeze(1).tolist()
    num = len(having_weight)
    if num <= MOST_ATTACKED:
        return None

    # the middle of each of so many equal stretches
    places = [(2 * i + 1) * num // (2 * MOST_ATTACKED) for i in range(MOST_ATTACKED)]
    return tuple(having_weight[place] for place in places)


def describe_attacked(teacher: Teacher) -> str:
    """What must be said where a few of a teacher's samples are attacked; empty where all are."""
    if attacked_samples(teacher) is None:
        return ""
    num = int(teacher.stream.weight_S.count_nonzero())
    return f"{MOST_ATTACKED} of {num} posterior samples, evenly spaced"


def ensemble(
    teacher: Teacher, samples: Sequence[int] | None = None, *, is_weighted: bool = False
) -> Ensemble:
    """Posterior samples of a teacher whose weights are known, to be asked at any inputs.

    Args:
        teacher: whose stream is built; between samples it is asked whether to stop.
        samples: which of them; all with their own weights by default.
        is_weighted: whether these have their own weights, of their sum, and not the same.
    """

    def networks() -> Iterator[tuple[float, Forward]]:
        own_weights = teacher.stream.weight_S.tolist()
        if samples is None:
            weights = dict(enumerate(own_weights))
        elif is_weighted:
            total = sum(own_weights[index] for index in samples)
            weights = {index: own_weights[index] / total for index in samples}
        else:
            weights = dict.fromkeys(samples, 1 / len(samples))
        for index, weight in weights.items():
            teacher.session.raise_if_stopped()
            yield weight, teacher.forward(teacher.stream.params(index))

    whole = _ensemble(teacher, networks)
    if samples is None and (few := attacked_samples(teacher)) is not None:
        return replace(whole, attacked=ensemble(teacher, few, is_weighted=True))
    return whole


@dataclass(frozen=True, eq=False)
class KeptAverage:
    """The average of a teacher whose samples are not stored, at the inputs where it was kept."""

    running: Running

    def networks(self) -> Iterator[tuple[float, Forward]]:
        """None is kept; conditions that ask for them are refused before any work."""
        return iter(())

    def predict(self, raw: Tensor) -> AnyPredictions:
        """What was kept at these inputs. Raises as ``Running.at_raw``."""
        return self.running.at_raw(raw)


def average_predictor(teacher: Teacher) -> Predictor | None:
    """The teacher's average, to be asked under conditions; None where its weights are not known."""
    if teacher.running is not None:
        return KeptAverage(teacher.running)
    return ensemble(teacher) if teacher.stream.has_weights else None


def network(teacher: Teacher, forward: Forward) -> Ensemble:
    """One network of the teacher's kind of output; before each pass it is asked whether to stop."""

    def networks() -> Iterator[tuple[float, Forward]]:
        teacher.session.raise_if_stopped()
        yield 1.0, forward

    return _ensemble(teacher, networks)


def as_posterior(teacher: Teacher, predictor: Predictor) -> Ensemble:
    """A predictor's networks as the samples of a posterior: one network is certain of itself."""
    certifiable = getattr(predictor, "certifiable", None)
    return replace(_ensemble(teacher, predictor.networks), certifiable=certifiable)


def _ensemble(
    teacher: Teacher, networks: Callable[[], Iterator[tuple[float, Forward]]]
) -> Ensemble:
    return Ensemble(networks, teacher.dataset.label_normalization, teacher.space.targets)
