"""One network trained with several seeds, measured under every condition of a space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gped_nas.api.students import Trainer
from gped_nas.data.base import Part
from gped_nas.evaluate.certify.radius import meaning_of_labels
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.measured import CLEAN, Key
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.resamples import Resamples
from gped_nas.evaluate.seeds import Sampled, sample_metrics


@dataclass(frozen=True, eq=False)
class OverSeeds:
    """Measures networks of one genotype.

    Attributes:
        trainer: that of the study.
        teacher: the teacher's predictions by part, as far as they are known.
        resamples: bootstrap draws by part.
    """

    trainer: Trainer
    teacher: Mapping[Part, AnyPredictions]
    resamples: Mapping[Part, Resamples]

    def sample(self, predictors: Sequence[Predictor], part: Part) -> dict[Key, Sampled]:
        """Every metric under every condition on a part of the dataset.

        Args:
            predictors: the networks, one a seed.
            part: where they are measured.
        """
        conditions = self.trainer.conditions
        sampled: dict[Key, Sampled] = {}
        for condition in (CLEAN, *(each.name for each in conditions.changed)):
            answers = [self._ask(predictor, part, condition) for predictor in predictors]
            by_name = sample_metrics(
                [predictions for predictions, _ in answers],
                self.trainer.teacher.dataset.labels(part),
                [teacher for _, teacher in answers],
                resamples=self.resamples[part],
                asked=conditions.asked(condition),
                task=meaning_of_labels(conditions.named(condition)),
            )
            sampled |= {Key(name, condition, part): row for name, row in by_name.items()}
        return sampled | self._sample_outside(predictors, part)

    def _sample_outside(self, predictors: Sequence[Predictor], part: Part) -> dict[Key, Sampled]:
        """Every metric of every out-of-distribution set."""
        conditions = self.trainer.conditions
        sampled: dict[Key, Sampled] = {}
        for outside in self.trainer.teacher.space.outside:
            detections = [conditions.detect(each, part, outside) for each in predictors]
            by_name = sample_metrics(
                [detection.predictions for detection in detections],
                detections[0].labels,
                [None] * len(detections),
                resamples=detections[0].resamples,
                asked=conditions.asked_outside(outside),
                task="ood",
            )
            sampled |= {Key(name, outside.name, part): row for name, row in by_name.items()}
        return sampled

    def _ask(
        self, predictor: Predictor, part: Part, condition: str
    ) -> tuple[AnyPredictions, AnyPredictions | None]:
        """What a network and the teacher say; None where the teacher's answer is not known."""
        if condition != CLEAN:
            return self.trainer.conditions.predict(predictor, part, condition)
        return predictor.predict(self.trainer.teacher.dataset.raw(part)), self.teacher.get(part)
