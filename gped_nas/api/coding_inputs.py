"""The inputs at which codecs are compared, and what networks say there."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gped_nas import device as devices
from gped_nas import rng
from gped_nas.api.coding_chains import Weighted
from gped_nas.api.measuring import ensemble
from gped_nas.api.tasks.bench import Examples
from gped_nas.api.teacher import Teacher
from gped_nas.distill.student import Student
from gped_nas.evaluate.codecs.measure import Asked
from gped_nas.evaluate.codecs.networks import Networks
from gped_nas.evaluate.outside import Inside, Outside
from gped_nas.evaluate.outside_names import parse_outside
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.student import student_predictions
from gped_nas.models.costs import largest_product

NUM_PROBES = 256
"""Inputs where distances are taken: half of the data, a quarter noise, a quarter from outside."""


@dataclass(frozen=True, eq=False)
class Places:
    """Inputs of three kinds, one after the other: examples, those from outside, probes.

    Attributes:
        teacher: whose networks are asked.
        examples: with labels.
        outside: the set of inputs from outside.
    """

    teacher: Teacher
    examples: Examples
    outside: Outside

    @cached_property
    def raw_outside(self) -> Tensor:
        """Inputs from outside, at most as many as examples."""
        return self._drawn(self.outside)

    @cached_property
    def raw_probes(self) -> Tensor:
        """Probe inputs, ``NUM_PROBES`` where there are as many."""
        kinds = {
            "data": (self.examples.raw, NUM_PROBES // 2),
            "noise": (self._drawn(parse_outside("noise", "probes")), NUM_PROBES // 4),
            "outside": (self.raw_outside, NUM_PROBES // 4),
        }
        probes = []
        for name, (raw, num) in kinds.items():
            generator = rng.generator(self.examples.seed, "codec probes", name)
            order = torch.randperm(len(raw), generator=generator)[:num]
            probes.append(raw[order].float())
        return torch.cat(probes)

    def _drawn(self, outside: Outside) -> Tensor:
        examples = self.examples
        inside = Inside(
            examples.dataset, examples.part, examples.raw, examples.labels, examples.seed
        )
        return outside.inputs(inside, ensemble(self.teacher))

    def asked(self, networks: Weighted) -> Asked:
        """What networks say at all three."""
        teacher, key = self.teacher, self.teacher.stream.key
        parts = [self.examples.raw.float(), self.raw_outside.float(), self.raw_probes]
        x = teacher.dataset.normalization(torch.cat(parts))
        predict = teacher.raw.predictor(x)
        said = []
        with devices.threads_for(
            largest_product(teacher.space.family, key.shapes, key.input_shape, len(x))
        ):
            for theta_W in networks.theta_SW:
                teacher.session.raise_if_stopped()
                said.append(predict(theta_W).cpu())

        log_probs = torch.split(torch.stack(said), [len(part) for part in parts], dim=1)
        inside, outside, probe = (
            Networks(log_prob_SMC, networks.weight_S, networks.is_drawn)
            for log_prob_SMC in log_probs
        )
        return Asked(probe=probe, inside=inside, outside=outside)

    def asked_student(self, student: Student) -> Asked:
        """What a student says: one network, with the E[H] that it has learned."""
        answers = [
            student_predictions(student, raw)
            for raw in (self.examples.raw, self.raw_outside, self.raw_probes)
        ]
        networks, whole = [], []
        for answer in answers:
            assert isinstance(answer, Predictions), "classes"
            log_prob_1MC = torch.from_numpy(answer.log_prob_NC)[None]
            networks.append(Networks(log_prob_1MC, torch.ones(1), is_drawn=False))
            whole.append(answer)
        inside, outside, probe = networks
        return Asked(probe=probe, inside=inside, outside=outside, answers=(whole[0], whole[1]))
