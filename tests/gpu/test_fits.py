"""MAP networks and members of an ensemble, trained at once on a GPU, against a processor's."""

from dataclasses import replace

import pytest
import torch

from gped_nas.api import map_network, sampling
from gped_nas.api.map_network import tuned_map_networks
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, load_dataset
from gped_nas.config import parse
from gped_nas.posterior import adam
from gped_nas.posterior.base import METHODS
from gped_nas.search.space_file import load_space
from tests.gpu.place import DEVICE, IS_CARD

CPU = torch.device("cpu")
STEPS = 200 if IS_CARD else 2
SETTINGS = {
    "teacher.genotype": {"depth": 2, "width": 40 if IS_CARD else 9},
    "baseline": {"steps": 400, "lr": 0.003, "precisions": [0.5, 20.0], "seeds": 2},
}


@pytest.fixture
def space(monkeypatch):
    """Of a small ensemble, whose trainings take few steps where they are interpreted."""
    space = load_space("digits_mlp", SETTINGS)
    if not IS_CARD:
        monkeypatch.setattr(adam, "CHECK_EVERY", 1)
    training = {"name": "deep_ensemble", "steps": STEPS, "chains": 2, "num_samples": 4}
    method = parse(METHODS["deep_ensemble"].config, training, "method")
    baseline = space.baseline.model_copy(update={"steps": STEPS})
    return replace(space, method=method, baseline=baseline)


def walk(patch: pytest.MonkeyPatch, *, is_on: bool) -> None:
    """Let networks be trained together, or one by one as on a processor."""
    for module in (sampling, map_network):
        patch.setattr(module, "has_phases", lambda device: is_on)


def away(theta, other) -> float:
    return float((theta - other).norm() / other.norm())


def test_an_ensemble_is_that_of_a_processor(space, tmp_path, monkeypatch):
    dataset = load_dataset(space)
    walk(monkeypatch, is_on=True)
    stream = sampling.sample(space, dataset, Session(DEVICE, streams=tmp_path / "walked"))
    walk(monkeypatch, is_on=False)
    expected = sampling.sample(space, dataset, Session(CPU, streams=tmp_path / "plain"))
    assert stream.num_samples == expected.num_samples == 4
    for index in range(4):
        assert away(stream.theta(index), expected.theta(index)) < 1e-3, index


def test_map_references_are_those_of_a_processor(space, tmp_path, monkeypatch):
    """Trained together; none is kept here, so that all are trained."""
    dataset = load_dataset(space)
    session = Session(DEVICE, streams=tmp_path / "streams")
    walk(monkeypatch, is_on=True)
    teacher = Teacher(space, dataset, sampling.sample(space, dataset, session), session)
    ours = tuned_map_networks(teacher)

    walk(monkeypatch, is_on=False)
    monkeypatch.setattr(map_network, "begin_fit", None)
    theirs = tuned_map_networks(replace(teacher, session=replace(session, device=CPU)))
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.precision == other.precision and mine.tried == other.tried == (0.5, 20.0)
        for name, value in mine.params.items():
            assert away(value, other.params[name]) < 1e-3, name
