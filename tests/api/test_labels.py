"""Labels among the targets in whole searches: where they count, and what is said of it."""

import numpy as np
import pytest
import torch
import yaml

import gped_nas as gn
from gped_nas.api.labels import labels_at_inputs
from gped_nas.api.lessons import distillation_set, rung_set
from gped_nas.api.online import online_feed
from gped_nas.errors import ConfigError
from gped_nas.targets.layout import LABELS, HeadLayout
from tests.api.test_surface import OVERRIDES
from tests.cli.harness import Home, accepted, refused

VIEWS = [{"policy": "clean"}, {"policy": "mixup"}, {"policy": "noise"}]
RECIPE = {"steps": 15, "warmup": 5, "lr": 0.05, "label_weight": 0.5}
ONE_TRIAL = {
    **OVERRIDES,
    "views": VIEWS,
    "recipe": RECIPE,
    "search": {"n_trials": 1, "students_at_once": 1, "keep": {}, "every_dtype": False},
}


def test_labels_count_at_views_that_keep_them(home: Home) -> None:
    space = gn.load_space("digits_sgld", ONE_TRIAL)
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    data = distillation_set(teacher)

    # clean, mixed, noisy: the middle third has no label
    expected = torch.nn.functional.one_hot(teacher.dataset.train.y, 10).float()
    clean, mixed, noisy = data.labels.chunk(3)
    assert torch.equal(clean, expected)
    assert torch.equal(noisy, expected)
    assert mixed.isnan().all()


def test_unlabeled_inputs_have_no_label(home: Home) -> None:
    subsampled = {**ONE_TRIAL, "data": {"subsample": 100}}
    space = gn.load_space("digits_sgld", subsampled)
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    labels = distillation_set(teacher).labels
    assert len(teacher.dataset.train) == 100
    assert (~labels.isnan().any(1)).sum() == 2 * 100


def test_rungs_look_at_labels_too(home: Home) -> None:
    space = gn.load_space("digits_sgld", {**ONE_TRIAL, "recipe": {**RECIPE, "rungs": 2}})
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    looked_at = rung_set(teacher, space.layout(10))
    assert torch.equal(looked_at.labels.argmax(1), teacher.dataset.validation.y)


def test_imported_inputs_have_labels_where_they_are_training_inputs_or_copies(home: Home) -> None:
    space = gn.load_space("digits_sgld", {**ONE_TRIAL, "views": VIEWS[:2]})
    dataset = gn.load_dataset(space)
    train, test = dataset.inputs("train").flatten(1), dataset.inputs("test").flatten(1)

    # rows: a test input, two training inputs, a copy of the second of these, one that is of several
    inputs = torch.cat([test[:1], train[:2], train[1:2] + 1, train[:1] + 1])
    labels = labels_at_inputs(
        space,
        inputs.numpy(),
        dataset,
        HeadLayout(("predictive",), 10),
        rows=[1, 2, 3, 4],
        origin_M=np.array([0, 1, 2, 2, -1]),
    )

    clean, mixed = labels.chunk(2)
    first, second = dataset.train.y[:2].tolist()
    assert clean[:3].argmax(1).tolist() == [first, second, second]
    assert clean[3].isnan().all()
    assert mixed.isnan().all()


def test_a_search_over_shares_says_where_labels_count(home: Home) -> None:
    written = yaml.safe_load(home.space.read_text())
    written["views"] = VIEWS[:2]
    written["students"][0]["genotype"]["label_weight"] = {"choices": [0, 0.5]}
    written["search"] = {
        "n_trials": 6,
        "students_at_once": 3,
        "sampler": "random",
        "keep": {},
        "every_dtype": False,
    }
    home.space.write_text(yaml.safe_dump(written))

    text = accepted("space", home.space, "--format", "json").out
    num = len(gn.load_dataset(gn.load_space(home.space)).train)
    share = f"weight 0 to 0.5 at {num:,} of {2 * num:,} inputs (50%)"
    assert share in text

    result = accepted("run", home.space, "--out", home.out)
    assert f"Labels count in the students' loss with {share}." in result.err
    records = gn.open_study("tiny", out=home.out).records()
    assert {record.genotype["label_weight"] for record in records} == {0.0, 0.5}
    assert all(record.state in ("complete", "duplicate") for record in records)


def test_an_online_chain_shows_labels_too(home: Home) -> None:
    online = {**RECIPE, "mode": "online"}
    space = gn.load_space("digits_sgld", {**ONE_TRIAL, "views": VIEWS[:2], "recipe": online})
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    data = distillation_set(teacher)
    x, shown = next(online_feed(teacher, data.inputs, data.labels))

    rows = {row.numpy().tobytes(): i for i, row in enumerate(data.inputs)}
    expected = data.labels[[rows[row.numpy().tobytes()] for row in x]]
    assert torch.equal(shown[LABELS].nan_to_num(-1), expected.nan_to_num(-1))
    assert 0 < expected.isnan().any(1).sum() < len(x)

    study = gn.run(space, out="reports", seed=0)
    assert study.records()[0].state == "complete"


def test_a_share_without_a_known_label_is_refused(home: Home) -> None:
    settings = {**ONE_TRIAL, "views": [{"policy": "mixup"}]}
    with pytest.raises(ConfigError, match=r"recipe.label_weight: found 0.5 with views \(mixup\)"):
        gn.load_space("digits_sgld", settings)


def test_a_share_beyond_one_is_refused(home: Home) -> None:
    refused(2, "space", home.space, "--set", "recipe.label_weight=1.5", says=("label_weight",))
