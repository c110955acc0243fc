"""Views of a stream: added without a chain, fixed by the space, kept when the stream grows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gped_nas as gn
from gped_nas.api import sampling
from gped_nas.api.lessons import distillation_set, validation_set
from gped_nas.api.teacher import Teacher
from gped_nas.data.views import parse_view
from gped_nas.errors import ConfigError, DataError
from gped_nas.search.space_file import parse_space
from gped_nas.targets.factors import split_factors
from gped_nas.targets.formulas import centered_logits

CLEAN = [{"policy": "clean"}]
ALL = [{"policy": name} for name in ("clean", "noise", "mixup", "disagreement")]
NUM_TRAIN = 1150


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
    **changes: Any,
) -> Teacher:
    method = method or sgld(num_samples)
    genotype = {"depth": 1, "width": 8}
    space = {
        "name": "tiny",
        "dataset": {"name": "digits"},
        "teacher": {"family": "mlp", "genotype": genotype, "method": method},
        "views": views,
        "students": [{"family": "mlp", "genotype": {"depth": 1, "width": 2}}],
        **changes,
    }
    return gn.build_teacher(parse_space(space, "tiny.yaml"), gn.new_session("cpu"))


def sealed_files(teacher: Teacher) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every sealed file of segments and views."""
    files = {}
    for part in ("segments", "views"):
        for path in (teacher.stream.folder / part).rglob("*"):
            if path.is_file():
                files[str(path)] = (path.read_bytes(), path.stat().st_mtime_ns)
    return files


@pytest.fixture
def no_chain(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, running a chain fails."""

    def run_chain(*args: Any, **more: Any) -> Any:
        raise AssertionError("a chain was run")

    return lambda: monkeypatch.setattr(sampling, "posterior_of", run_chain)


def inputs_of(teacher: Teacher, index: int) -> torch.Tensor:
    """The inputs of one of its views."""
    return teacher.inputs(teacher.resolve_views()[index])


def test_adding_views_runs_no_chain_and_touches_nothing_sealed(
    no_chain: Callable[[], None],
) -> None:
    before = build(CLEAN)
    files_before = sealed_files(before)

    no_chain()
    with pytest.raises(AssertionError, match="a chain was run"):
        build(CLEAN, seed=1)
    after = build(ALL)

    assert after.stream.digest == before.stream.digest
    assert files_before.items() < sealed_files(after).items()


def test_students_learn_what_the_samples_predict_at_the_very_inputs_of_each_view() -> None:
    teacher = build(ALL)
    data = distillation_set(teacher)
    params = {name: value.double() for name, value in teacher.stream.params(3).items()}
    assert len(data.inputs) == 4 * NUM_TRAIN
    for i, view in enumerate(teacher.resolve_views()):
        rows = slice(i * NUM_TRAIN, (i + 1) * NUM_TRAIN)
        predicted_SNC = teacher.stream.predictions(view.name).double()
        mean = predicted_SNC.exp().mean(0)
        assert torch.allclose(data.expectations["predictive"][rows].double(), mean, atol=1e-6)

        # sample 3 by hand
        x = data.inputs[rows].flatten(1).double()
        hidden = (x @ params["layers.0.weight"].mT + params["layers.0.bias"]).relu()
        logits = hidden @ params["layers.1.weight"].mT + params["layers.1.bias"]
        assert torch.allclose(predicted_SNC[3], logits.log_softmax(-1), atol=1e-4)


def test_clean_answers_are_the_stored_ones_and_take_no_disk() -> None:
    flip = {"policy": "flip", "draws": 2, "answers": "clean"}
    plain = build(CLEAN)
    stored = sealed_files(plain)
    clean = distillation_set(plain).expectations

    teacher = build([*CLEAN, flip])
    data = distillation_set(teacher)
    assert sealed_files(teacher) == stored
    assert len(data.inputs) == 3 * NUM_TRAIN
    for i in range(3):
        rows = slice(i * NUM_TRAIN, (i + 1) * NUM_TRAIN)
        assert torch.equal(data.inputs[rows], inputs_of(teacher, i))
        for name, value in clean.items():
            assert torch.equal(data.expectations[name][rows], value)


def test_clean_answers_are_made_where_no_view_is_clean() -> None:
    alone = distillation_set(build([{"policy": "noise", "answers": "clean"}]))
    clean = distillation_set(build(CLEAN))
    assert torch.equal(alone.expectations["predictive"], clean.expectations["predictive"])


def test_single_samples_are_read_at_the_untouched_inputs_too() -> None:
    recipe = {"update": "newest"}
    views = [{"policy": "noise"}, {"policy": "noise", "answers": "clean"}]
    teacher = build(views, recipe=recipe)
    samples = distillation_set(teacher).samples
    assert samples is not None
    own, clean = (teacher.stream.predictions(view.asked.name) for view in teacher.resolve_views())
    read = samples.at(torch.tensor([2, 2]), torch.tensor([7, 7 + NUM_TRAIN]))
    assert torch.equal(read, torch.stack([own[2, 7], clean[2, 7]]))


def test_an_online_chain_has_no_stored_answers() -> None:
    views = [{"policy": "flip", "answers": "clean"}]
    with pytest.raises(ConfigError, match="found online, but view 'flip'"):
        build(views, recipe={"mode": "online"})


def test_disagreement_raises_the_spread_of_the_samples_it_asked() -> None:
    teacher = build([{"policy": "clean"}, {"policy": "disagreement", "distance": 0.05}])
    clean, moved = (
        teacher.stream.predictions(view.name).exp().var(0).sum(-1)
        for view in teacher.resolve_views()
    )
    assert float((moved > clean).float().mean()) > 0.97


def test_more_samples_make_another_view_and_leave_the_sealed_one() -> None:
    views = [{"policy": "clean"}, {"policy": "disagreement", "samples": 3}]
    short = build(views)
    files_before = sealed_files(short)
    names = [view.name for view in short.resolve_views()]

    long = build(views, num_samples=8)
    assert long.stream.folder == short.stream.folder and long.stream.num_samples == 8
    assert files_before.items() < sealed_files(long).items()
    clean, disagreement = long.resolve_views()
    assert clean.name == names[0] and disagreement.name != names[1]

    # the short space on the grown stream: the same view, the same inputs
    again = build(views)
    assert [view.name for view in again.resolve_views()] == names
    assert torch.equal(inputs_of(again, 1), inputs_of(short, 1))


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
    assert torch.equal(inputs_of(at_once, 0), inputs_of(grown, 0))


def test_moved_inputs_are_kept_with_the_stream_and_can_be_made_again() -> None:
    views = [{"policy": "disagreement", "samples": 2}]
    before = build(views)
    files = list((before.stream.folder / "derived").glob("inputs-*"))
    assert sorted(path.suffix for path in files) == [".json", ".npy"]
    for path in files:
        path.unlink()

    again = build(views)  # refused as made for other inputs if a single bit differed
    assert torch.equal(inputs_of(again, 0), inputs_of(before, 0))


def test_teachers_and_datasets_that_cannot_be_asked_are_refused() -> None:
    message = r"asks 8 posterior samples, and the teacher \(map\) has one"
    with pytest.raises(ConfigError, match=message):
        build([{"policy": "disagreement"}], method={"name": "map", "steps": 100})
    with pytest.raises(DataError, match="'pool' takes the unlabeled inputs of dataset 'digits'"):
        build([{"policy": "pool"}])


FRESH = {"draw_views": "fresh"}


def test_fresh_views_are_untouched_until_a_step_draws_them() -> None:
    views = [{"policy": "clean"}, {"policy": "flip"}, {"policy": "shift", "answers": "clean"}]
    teacher = build(views, recipe=FRESH)
    data = distillation_set(teacher)
    assert list(teacher.stream.views) == [
        teacher.clean_view("distillation").name,
        teacher.clean_view("validation").name,
    ]
    clean = distillation_set(build(CLEAN))
    assert torch.equal(data.inputs, clean.inputs.repeat(3, 1, 1, 1))
    assert data.fresh is not None and data.fresh.ask is not None

    # at its own inputs the teacher is the average of all its samples, asked as for a stored view
    x = parse_view({"policy": "flip", "draw": 9}, "test", 0).move(clean.inputs[:32])
    predict = teacher.predictor(x)
    prob_SNC = torch.stack([predict(teacher.stream.theta(i)) for i in range(4)]).double().exp()
    entropy_SN = -(prob_SNC * prob_SNC.log()).sum(-1)
    answer = data.fresh.ask(x)
    torch.testing.assert_close(answer["predictive"].double(), prob_SNC.mean(0), atol=1e-6, rtol=0)
    entropy = entropy_SN.mean(0)
    torch.testing.assert_close(
        answer["expected_entropy"][:, 0].double(), entropy, atol=1e-5, rtol=0
    )


def test_fresh_views_of_clean_answers_ask_no_teacher() -> None:
    views = [{"policy": ["flip", "shift"], "answers": "clean"}]
    data = distillation_set(build(views, recipe=FRESH))
    assert data.fresh is not None and data.fresh.ask is None


@pytest.mark.parametrize(
    ("views", "recipe", "message"),
    [
        (
            [{"policy": "flip", "draws": 2, "answers": "clean"}],
            {},
            "views: found several draws of policy 'flip' with recipe.draw_views: fresh, expected "
            "one: each step draws anew; remove draws",
        ),
        ([{"policy": "noise"}], {"mode": "online"}, "found fresh with mode online"),
        ([{"policy": "disagreement"}], {}, "found fresh with policy 'disagreement'"),
        (
            [{"policy": "flip"}],
            {"update": "newest"},
            "found fresh with update newest and the teacher's own answers at 'flip'",
        ),
    ],
)
def test_what_cannot_be_drawn_in_each_step_is_refused(
    views: list[dict[str, Any]], recipe: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=r"tiny.yaml: .*" + message):
        build(views, recipe={**FRESH, **recipe})


def test_factors_go_together_over_views_fresh_draws_and_validation() -> None:
    """Five samples, four factors: loadings of any two inputs are the samples' covariance there."""
    fresh = {"draw_views": "fresh", "update": "averaged"}
    targets = ["predictive", {"name": "factors", "rank": 4}]
    views = [{"policy": "clean"}, {"policy": "noise", "answers": "own"}]
    teacher = build(views, num_samples=5, method={**sgld(5), "chains": 1}, targets=targets)
    layout = teacher.space.layout(10)
    once = distillation_set(teacher)
    validation = validation_set(teacher, layout)
    recipe = teacher.space.recipe.model_copy(update=fresh)
    moved = distillation_set(replace(teacher, space=replace(teacher.space, recipe=recipe)))
    assert moved.fresh is not None and moved.fresh.ask is not None

    x = torch.cat([once.inputs[:3], once.inputs[NUM_TRAIN : NUM_TRAIN + 3]])
    told = [once.expectations["factors"][:3]]
    told += [once.expectations["factors"][NUM_TRAIN : NUM_TRAIN + 3]]
    told += [validation.expectations["factors"][:3], moved.fresh.ask(x)["factors"]]
    x = torch.cat([x, validation.inputs[:3], x])

    predict = teacher.predictor(x)
    stream = teacher.stream
    answers = [predict(stream.theta(index)) for index in range(stream.num_samples)]
    logits = centered_logits(torch.stack(answers).double())
    deviations = (logits - logits.mean(0)).flatten(1)
    expected = deviations.T @ deviations / len(deviations)

    _, loadings, _ = split_factors(torch.cat(told).double(), 10)
    ours = loadings.movedim(1, -1).flatten(0, 1)
    torch.testing.assert_close(ours @ ours.T, expected, rtol=1e-3, atol=1e-3)
