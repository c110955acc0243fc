"""Views of a stream that is there: added without a chain, fixed by the space, kept when the stream
grows.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gped_nas as gn
from gped_nas.api import sampling
from gped_nas.api.lessons import distillation_set
from gped_nas.api.teacher import Teacher
from gped_nas.errors import ConfigError, DataError
from gped_nas.posterior.base import METHODS
from gped_nas.search.space_file import parse_space

CLEAN, ALL = (
    [{"policy": "clean"}],
    [{"policy": name} for name in ("clean", "noise", "mixup", "disagreement")],
)
MAP = {"name": "map", "steps": 100}


def sgld(num_samples: int) -> dict[str, Any]:
    return {
        "name": "sgld",
        "chains": 2,
        "num_samples": num_samples,
        "step_size": {"initial": 2.0e-4},
        "burn_in": 40,
        "thinning": 10,
    }


def build(
    views: list[dict[str, Any]],
    *,
    num_samples: int = 4,
    method: dict[str, Any] | None = None,
    **more: Any,
) -> Teacher:
    space = {
        "name": "tiny",
        "dataset": {"name": "digits"},
        "teacher": {
            "family": "mlp",
            "genotype": {"depth": 1, "width": 8},
            "method": method or sgld(num_samples),
        },
        "views": views,
        "students": [{"family": "mlp", "genotype": {"depth": 1, "width": 2}}],
        **more,
    }
    return gn.build_teacher(parse_space(space, "tiny.yaml"), gn.new_session("cpu"))


def sealed(teacher: Teacher, *parts: str) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file that is sealed under these folders of a stream."""
    files = (p for part in parts for p in (teacher.stream.folder / part).rglob("*") if p.is_file())
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


@pytest.fixture
def no_chain(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, running a chain fails."""

    def ran(*args: Any, **more: Any) -> Any:
        raise AssertionError("a chain was run")

    return lambda: monkeypatch.setattr(sampling, "posterior_of", ran)


def test_adding_views_runs_no_chain_and_touches_nothing_sealed(
    no_chain: Callable[[], None],
) -> None:
    first = build(CLEAN)
    before = sealed(first, "segments", "views")
    no_chain()
    with pytest.raises(AssertionError, match="a chain was run"):
        build(CLEAN, seed=1)
    second = build(ALL)
    after = sealed(second, "segments", "views")
    assert second.stream.digest == first.stream.digest and before.items() < after.items()
    data = distillation_set(second)
    assert len(data.inputs) == 4 * 1150
    for i, view in enumerate(second.resolve_views()):
        rows = slice(i * 1150, (i + 1) * 1150)
        mean = second.stream.predictions(view.name).double().exp().mean(0)
        assert torch.allclose(data.expectations["predictive"][rows].double(), mean, atol=1e-6)
        # the teacher's own predictions at these very inputs: sample 3 by hand
        own = {name: p.double() for name, p in second.stream.params(3).items()}
        x = data.inputs[rows].flatten(1).double()
        hidden = (x @ own["layers.0.weight"].mT + own["layers.0.bias"]).relu()
        raw = hidden @ own["layers.1.weight"].mT + own["layers.1.bias"]
        assert torch.allclose(
            second.stream.predictions(view.name)[3].double(), raw.log_softmax(-1), atol=1e-4
        )


def test_disagreement_raises_the_spread_of_the_samples_it_asked() -> None:
    teacher = build([{"policy": "clean"}, {"policy": "disagreement", "distance": 0.05}])
    spreads = [
        teacher.stream.predictions(view.name).exp().var(0).sum(-1)
        for view in teacher.resolve_views()
    ]
    assert float((spreads[1] > spreads[0]).float().mean()) > 0.97


def test_more_samples_make_another_view_and_leave_the_sealed_one() -> None:
    views = [{"policy": "clean"}, {"policy": "disagreement", "samples": 3}]
    short = build(views)
    before, names = (
        sealed(short, "segments", "views"),
        [view.name for view in short.resolve_views()],
    )
    long = build(views, num_samples=8)
    assert long.stream.folder == short.stream.folder and long.stream.num_samples == 8
    assert before.items() < sealed(long, "segments", "views").items()
    assert long.resolve_views()[0].name == names[0] and long.resolve_views()[1].name != names[1]
    again = build(views)  # the short space on the grown stream: the same view, the same inputs
    assert [view.name for view in again.resolve_views()] == names
    assert torch.equal(
        again.inputs(again.resolve_views()[1]), short.inputs(short.resolve_views()[1])
    )


def test_the_view_does_not_depend_on_the_runs_the_stream_was_grown_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [{"policy": "disagreement", "samples": 3}]
    build(views)
    grown = build(views, num_samples=8)
    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "another"))
    at_once = build(views, num_samples=8)
    assert len(grown.stream.segments) == 2 and len(at_once.stream.segments) == 1
    assert at_once.resolve_views() == grown.resolve_views()
    assert torch.equal(
        at_once.inputs(at_once.resolve_views()[0]), grown.inputs(grown.resolve_views()[0])
    )


def test_moved_inputs_are_kept_with_the_stream_and_can_be_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views = [{"policy": "disagreement", "samples": 2}]
    first = build(views)
    kept = list((first.stream.folder / "derived").glob("inputs-*"))
    assert sorted(p.suffix for p in kept) == [".json", ".npy"]
    for path in kept:
        path.unlink()
    again = build(views)  # refused as made for other inputs if a single bit differed
    assert torch.equal(
        again.inputs(again.resolve_views()[0]), first.inputs(first.resolve_views()[0])
    )


def test_teachers_that_cannot_be_asked_are_refused(tmp_path: Path) -> None:
    views = [{"policy": "disagreement"}]
    with pytest.raises(
        ConfigError, match=r"asks 8 posterior samples, and the teacher \(map\) has one"
    ):
        build(views, method=MAP)
    assert "map" in METHODS
    with pytest.raises(DataError, match="'pool' takes the unlabeled inputs of dataset 'digits'"):
        build([{"policy": "pool"}])
