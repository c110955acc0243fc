"""From an ensemble of live models to a study of students, in one call."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gped_nas.api.bars import bars, is_watched
from gped_nas.api.copies import Policies
from gped_nas.api.ensemble import EnsembleMember
from gped_nas.api.given import unchanged_if_refused
from gped_nas.api.job import check_study_name, run
from gped_nas.api.members import Model, as_models
from gped_nas.api.proposal import propose
from gped_nas.api.recording import record_predictions
from gped_nas.api.session import Session, new_session
from gped_nas.api.study import Study
from gped_nas.api.teacher import load_dataset
from gped_nas.config import dump_yaml
from gped_nas.data.base import load
from gped_nas.data.bring import as_dataset, bring, classes_of
from gped_nas.data.sources import restore_layout
from gped_nas.errors import DataError
from gped_nas.io import write_text
from gped_nas.models.module_costs import module_bytes, module_macs
from gped_nas.search.bounds import as_bounds
from gped_nas.search.space_file import load_space

PREDICTIONS, SPACE = "predictions.npz", "space.yaml"


def distill_from(
    models: object,
    data: object,
    *,
    within: str | Sequence[str] | Mapping[str, float] = (),
    name: str = "distilled",
    ensemble: str | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    weights: Sequence[float] | None = None,
    policy: Policies = (),
    n_trials: int | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "reports",
    session: Session | None = None,
) -> Study:
    """A study of students that replace an ensemble of live models.

    What the models say is recorded, a search space that suits the data is written, and it is
    searched. Data, predictions and space lie in the study's folder under ``given``, so that
    ``gped-search run <out>/<name>/given/space.yaml`` goes on with the study, as the same call does.
    A call that a study refuses, since models, data or settings are others, leaves them as they are.

    Args:
        models: see ``record_predictions``.
        data: ``(x, y)``; a mapping of the arrays of an npz (``x_train``, ``y_train``, ``x_test``);
            a torch dataset of such pairs; the path of an npz, a table or a folder of images; or
            settings of a dataset. It is brought as ``as_dataset`` brings it.
            Inputs are in the range and layout in which models, or ``prepare``, take them; what is
            not named a part is split.
        within: what a student may cost: ``"100kB,2MFLOPs"``.
        name: of the study.
        ensemble: what the ensemble is called in report and card; by default its number of members
            and their class.
        prepare: makes of inputs (B, ...) what the models take.
        weights: of the members, on any scale; all alike by default.
        policy: moved copies of training inputs at which the models are asked too, see
            ``record_predictions``. The proposed views need none.
        n_trials: finished trials; the proposed number by default.
        settings: dotted keys of the space to values that replace the proposed ones:
            ``{"recipe.steps": 2000}``.
        out: folder of all studies.
        session: how to run; without one, bars are drawn where somebody looks.

    Raises:
        ConfigError: no model, one in training mode, a bound that no student can meet, or a setting.
        DataError: the data cannot be used, or a model answers with anything but log-probabilities
            of the data's classes.
        GateError: it finished and no student is within the bounds.
        GpedError: see ``run``.
    """
    members = as_models(models)
    bounds = as_bounds(within, "within") if within else {}
    check_study_name(name, "name")

    with unchanged_if_refused(Path(out) / name) as folder:
        brought = _bring(data, folder)
        prepared = _preparation(brought, prepare)
        path = _propose(brought, folder, name, bounds)

        space = load_space(path, settings)
        dataset = load_dataset(space)
        with _asking(session) as asking:
            record_predictions(
                members,
                dataset,
                out=folder / PREDICTIONS,
                policy=policy,
                prepare=prepared,
                weights=weights,
                seed=space.seed,
                session=asking,
            )

        told = _describe(members, prepared(dataset.raw("validation")[:1]), ensemble)
        space = load_space(path, {**told, **(settings or {})})
        write_text(path, dump_yaml(space.resolved))
        return run(space, out=out, study_name=name, n_trials=n_trials, session=session)


@contextlib.contextmanager
def _asking(session: Session | None) -> Iterator[Session]:
    """The session in which models are asked; without a given one, it draws a bar on a terminal."""
    if session is not None or not is_watched():
        yield session or new_session()
        return
    with bars() as drawn:
        yield new_session(progress=drawn.report)


def _bring(data: object, folder: Path) -> dict[str, Any]:
    """Settings of the data; what lies in memory is written to a folder below this one."""
    if isinstance(data, str | os.PathLike) or (isinstance(data, Mapping) and "name" in data):
        return as_dataset(data)
    return bring({"train": data}, classes_of(data), root=folder, settings={})


def _preparation(
    dataset: Mapping[str, Any], prepare: Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor], Tensor]:
    """What makes of the dataset's raw inputs what the models take."""
    restore = restore_layout(dataset)

    def prepared(raw: Tensor) -> Tensor:
        as_given = restore(raw)
        return as_given if prepare is None else prepare(as_given)

    return prepared


def _propose(dataset: dict[str, Any], folder: Path, name: str, bounds: Mapping[str, float]) -> Path:
    """The file of a space that suits the data, within bounds."""
    predictions = folder / PREDICTIONS
    proposal = propose(load(dict(dataset)), ensemble=predictions)
    if not proposal.is_class:
        raise DataError(
            "data: found labels that are not whole, expected classes: the models answer with "
            "log-probabilities of classes; give each example its class"
        )

    data = {
        "name": name,
        "dataset": dataset,
        "teacher": {"predictions": str(predictions)},
        "views": [dict(view) for view in proposal.views],
        "targets": list(proposal.targets),
        "students": [{"family": proposal.family, "genotype": dict(proposal.students)}],
        "objectives": ["nll", "flops", "storage_bytes"],
        "constraints": dict(bounds),
        "search": {"n_trials": proposal.n_trials},
        "twins": {"seeds": 1, "students": 1},
        "recipe": dict(proposal.recipe),
    }
    path = folder / SPACE
    write_text(path, dump_yaml(data))
    return path


def _describe(members: Sequence[Model], x: Tensor, ensemble: str | None) -> dict[str, Any]:
    """What is said of the ensemble: name and costs, as settings of the space."""
    kinds = {_kind(member) for member in members}
    is_told = len(kinds) == 1 and isinstance(members[0], nn.Module)
    kind = kinds.pop() if is_told else "models"
    return {
        "teacher.name": ensemble or f"{len(members)} x {kind}",
        "teacher.macs": module_macs(members, x),
        "teacher.storage_bytes": module_bytes(members),
    }


def _kind(member: Model) -> str:
    """What a member is called: the class of its network."""
    network = member.network if isinstance(member, EnsembleMember) else member
    return type(network).__name__
