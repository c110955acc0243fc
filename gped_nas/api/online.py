"""Online distillation: a chain of the teacher's own method, run for each population of students."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.api.sampling import as_networks_see, posterior, samples_read
from gped_nas.api.teacher import Teacher
from gped_nas.distill.feed import Batch
from gped_nas.distill.online import online_batches
from gped_nas.posterior.base import METHODS, unflatten
from gped_nas.targets.base import for_labels


def online_feed(teacher: Teacher, inputs: Tensor, labels: Tensor | None = None) -> Iterator[Batch]:
    """What the students of one population are shown, a batch a step. See ``distill.online``.

    Args:
        teacher: whose chain is run.
        inputs: normalized inputs of all its views (M, *input_shape), which the first pass shows.
        labels: what the labels say at them, in every pass; see ``DistillationSet.labels``.

    Raises:
        Interrupted: the session said stop.
        DivergenceError: the chain diverged.
        ConfigError: the chain ended before the students were done.
    """
    space, dataset, session = teacher.space, teacher.dataset, teacher.session
    samples = samples_read(space, dataset, session)
    problem = posterior(space, dataset, device=session.device, samples=samples)
    forward = space.family.forward

    def thetas() -> Iterator[Tensor]:
        generator = rng.generator(space.seed, "posterior", 0)
        for step in METHODS[space.method.name](problem, space.method, generator=generator):
            session.raise_if_stopped()
            if step.sample is not None:
                yield step.sample.theta_W

    def predict(theta_W: Tensor, x: Tensor) -> Tensor:
        x_seen = as_networks_see(space, dataset, x)
        said = space.likelihood.predict(forward(unflatten(theta_W, problem.shapes), x_seen))
        return teacher.stream.temper(said)

    def draw_inputs(number: int) -> Tensor:
        if number == 0:
            return inputs

        seed = rng.seed(space.seed, "online pass", number)
        by_view = []
        for view in teacher.resolve_views():
            if view.num_samples:
                # a policy that asks posterior samples draws nothing: its inputs stay what they are
                by_view.append(teacher.inputs(view))
            else:
                by_view.append(replace(view, seed=seed).inputs(dataset))
        return torch.cat(by_view)

    return online_batches(
        thetas(),
        predict,
        draw_inputs,
        for_labels(space.targets, dataset.label_normalization),
        space.recipe,
        root=space.seed,
        device=session.device,
        labels=labels,
    )
