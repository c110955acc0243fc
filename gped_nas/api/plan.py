"""What a run would do, in numbers, without doing any of it; what it would refuse is refused."""

from typing import Any

import numpy as np

from gped_nas.api.chance import check_import
from gped_nas.api.imported import Fitted, fit_predictions
from gped_nas.api.labels import label_facts
from gped_nas.api.sampling import sampled_spaces, stream_key
from gped_nas.api.session import Session
from gped_nas.api.teacher import load_dataset
from gped_nas.data.base import Dataset
from gped_nas.data.facts import describe_inputs
from gped_nas.data.memory import describe_memory
from gped_nas.distill.phases import check_kernel, takes_phases
from gped_nas.evaluate.teacher import averaged
from gped_nas.models.base import num_params
from gped_nas.search.proposing.choosing import choose_sampler
from gped_nas.search.space import SearchSpace
from gped_nas.stream.predictions import STORED


def plan(space: SearchSpace, session: Session, n_trials: int | None = None) -> dict[str, Any]:
    """What a run would do, by what it is called for people.

    Args:
        space: what would be searched.
        session: how it would run; its device is there.
        n_trials: as ``run``'s.

    Raises:
        GpedError: ``run`` would refuse space, dataset or imported predictions.
    """
    if space.module is not None:
        space.module.require()
    dataset = load_dataset(space)
    space.check_reachable(dataset.input_shape, dataset.num_outputs)
    check_kernel(space.recipe.kernel, session.device, f"{space.source}: recipe")

    low = space.smallest_cost(dataset.input_shape, dataset.num_outputs)
    high = space.largest_cost(dataset.input_shape, dataset.num_outputs)
    return {
        "dataset": f"{dataset.name}: {dataset.split_text}",
        "memory for inputs": describe_memory(dataset),
        **_teacher(space, dataset, session),
        **label_facts(space, dataset),
        "device": str(session.device),
        "kernel": _kernel_text(space, session),
        "trials": n_trials or space.search.n_trials,
        "sampler": _sampler_text(space, n_trials or space.search.n_trials),
        "students at once": space.search.students_at_once,
        **{name: f"{low[name]:,.0f} to {high[name]:,.0f}" for name in low},
    }


def _sampler_text(space: SearchSpace, n_trials: int) -> str:
    """Who proposes genotypes, and why."""
    chosen = choose_sampler(space, n_trials)
    return f"{chosen.name}: {chosen.why}" if chosen.why else chosen.name


def _kernel_text(space: SearchSpace, session: Session) -> str:
    """How the steps of students are computed."""
    kernel = space.recipe.kernel
    if takes_phases(kernel, session.device):
        return f"{kernel}: mlp of ReLUs in phases of tiles, others in a graph of products"
    if session.device.type == "cuda":
        return f"{kernel}: a graph of products"
    return f"{kernel}: products on the CPU"


def _teacher(space: SearchSpace, dataset: Dataset, session: Session) -> dict[str, Any]:
    read_predictions = space.method.predictions()
    if read_predictions is None:
        return _sampled(space, dataset, session)
    ensemble = read_predictions(dataset.num_classes)
    return _imported(space, fit_predictions(space, ensemble, dataset), dataset, session)


def _sampled(space: SearchSpace, dataset: Dataset, session: Session) -> dict[str, Any]:
    """A teacher whose networks are known: where its samples lie, and what they take."""
    shapes = stream_key(space, dataset).shapes
    num_samples = space.method.count(shapes)

    # a method may read another one's samples, which are a stream of their own
    streams, num_stored = {}, 0
    for sampled in sampled_spaces(space):
        what = "stream" if sampled is space else f"samples of {sampled.method.title()}"
        streams[what] = _stream_text(sampled, dataset, session, "sampled")
        num_stored += sampled.method.count(shapes)

    num_inputs = len(dataset.validation) + len(dataset.test)
    stored_views = {space.stored_view(view) for view in space.views}
    num_inputs += sum(len(dataset.raw(view.part)) for view in stored_views)
    num_predicted = space.likelihood.num_predicted(dataset.num_outputs)
    if space.recipe.stream == "none":
        return {
            "teacher": f"{space.teacher_text}, {num_samples} posterior samples",
            **streams,
            "disk for weights": (num_stored - num_samples) * num_params(shapes) * 4,
            "kept of the teacher": "averages at validation and test inputs, of a size that does "
            "not depend on the number of samples",
        }

    bytes_each = np.dtype(STORED[space.stream.prediction_dtype]).itemsize
    return {
        "teacher": f"{space.teacher_text}, {num_samples} posterior samples",
        **streams,
        "disk for weights": num_stored * num_params(shapes) * 4,
        "disk for predictions": num_samples * num_inputs * num_predicted * bytes_each,
    }


def _imported(
    space: SearchSpace, fitted: Fitted, dataset: Dataset, session: Session
) -> dict[str, Any]:
    """A teacher that is known by its predictions: how many there are, and what they take."""
    check_import(space, dataset, averaged(fitted.at(dataset, "validation"), fitted.weight_S))
    num_samples, num_inputs, num_classes = fitted.log_prob_SMC.shape
    members = "1 member" if num_samples == 1 else f"{num_samples} members"
    return {
        "teacher": f"{space.teacher_text}, {members} at {num_inputs:,} inputs",
        "inputs of the file": _layout_text(dataset, has_channels_last=fitted.has_channels_last),
        "students learn at": f"{fitted.num_to_learn_from(dataset):,} of these inputs",
        "stream": _stream_text(space, dataset, session, "written"),
        "disk for weights": 0,
        "disk for inputs": fitted.inputs_MD.nbytes,
        "disk for predictions": num_samples * num_inputs * num_classes * 4,
    }


def _layout_text(dataset: Dataset, *, has_channels_last: bool) -> str:
    """How inputs of the file were read."""
    text = describe_inputs(dataset.input_shape)
    if len(dataset.input_shape) == 3 and dataset.input_shape[0] > 1:
        text += ", which come last" if has_channels_last else ", which come first"
    return text


def _stream_text(space: SearchSpace, dataset: Dataset, session: Session, verb: str) -> str:
    folder = stream_key(space, dataset).folder(session.streams)
    kept = "segments" if space.recipe.stream == "stored" else "averages"
    is_there = (folder / kept).exists()
    return f"{folder} ({'there' if is_there else f'to be {verb}'})"
