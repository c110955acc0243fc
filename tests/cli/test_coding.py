"""``gped-search codec``: a posterior in few bytes beside a chain that no codec has read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gped_nas as gn
from gped_nas.api import coding_measure
from gped_nas.api.coding_choices import KNOBS, choices_of, parse_choice, split_choices
from gped_nas.evaluate.codecs.measure import MEASURES
from gped_nas.posterior.base import ChainConfig, parse_method
from tests.cli.harness import Home, accepted, refused
from tests.report.test_page import Page

MORE = ("--set", "teacher.method.num_samples=16")


def _averages(home: Home, settings: dict[str, object]) -> list[torch.Tensor]:
    """Average probabilities on validation of the first chain of two, and of the second one."""
    teacher = gn.load_teacher(gn.load_space(home.space, settings))
    prob = teacher.predicted("validation").double().exp()
    return [prob[chain::2].mean(0) for chain in (0, 1)]


def test_one_command_draws_the_front_and_resumes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("codec", home.space, *MORE, "--codecs", "subset", "--sizes", "2,5")
    arguments = (*arguments, "--out", home.out)
    result = accepted(*arguments, "--format", "json")

    rows = json.loads(result.out)
    folder = home.out / "tiny-codec"
    assert f"report: {folder / 'codec.html'}" in result.err
    assert "code 3 of 3: subset num_samples=5, seed 0" in result.err
    by_name = {(row["predictor"], row["metric"]): row for row in rows}
    names = ["stream", "subset num_samples=2", "subset num_samples=5"]
    assert list(by_name) == [(name, metric) for name in names for metric in MEASURES]
    row = by_name["subset num_samples=2", "average_kl"]
    assert (row["codec"], row["seed"], row["task"], row["part"]) == (
        *("subset", 0, "codec", "validation"),
    )
    assert by_name["stream", "ood_auroc_model"]["condition"] == "permuted"

    # a number follows from the stream alone
    read, held_out = _averages(home, {"teacher.method.num_samples": 16})
    kl = (held_out * (held_out / read).log()).sum(-1).mean()
    assert by_name["stream", "average_kl"]["value"] == pytest.approx(float(kl), abs=1e-6)
    assert by_name["stream", "average_kl"]["n"] == 288
    assert by_name["stream", "copied_share"]["value"] == pytest.approx(1)

    # eight samples of 610 weights, and a little for the file
    weights = 64 * 8 + 8 + 8 * 10 + 10
    assert 0 < by_name["stream", "energy"]["bytes"] - 8 * 4 * weights < 600
    assert 0 < row["bytes"] - 2 * 4 * weights < 600

    page = Page((folder / "codec.html").read_text())
    charts = {name for name in page.attributes("id") if name.startswith("chart-")}
    assert {"chart-energy", "chart-average-kl", "chart-information-ratio"} <= charts
    assert set(page.embedded("charts")["charts"]) == charts
    assert not page.attributes("src")
    data = json.loads((folder / "codec.json").read_text())
    assert page.embedded("numbers-json") == data
    assert data["fronts"]["energy"][0] == "subset num_samples=2"
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert lines == rows

    # nothing is fitted again; another size alone is
    monkeypatch.setattr(coding_measure, "fit_code", _never)
    assert json.loads(accepted(*arguments, "--format", "json").out) == rows
    table = accepted(*arguments).out
    assert "subset num_samples=5" in table
    with pytest.raises(AssertionError, match="fitted again"):
        gn.codec(
            home.space,
            "subset",
            sizes=[3],
            overrides={"teacher.method.num_samples": 16},
            out=home.out,
        )


def _never(*arguments: object) -> None:
    raise AssertionError("fitted again")


def test_seeds_have_teachers_of_their_own_and_means_their_interval(home: Home) -> None:
    front = gn.codec(
        home.space,
        "subset:num_samples=2",
        seeds=2,
        overrides={"teacher.method.num_samples": 8},
        out=home.out,
    )

    assert {row["seed"] for row in front.rows} == {0, 1}
    assert len(list((home.cache / "streams").iterdir())) == 2
    (mean,) = [
        row
        for row in front.data["means"]
        if (row["codec"], row["metric"]) == ("subset", "average_kl")
    ]
    values = [
        row["value"]
        for row in front.rows
        if (row["codec"], row["metric"]) == ("subset", "average_kl")
    ]
    assert mean["value"] == pytest.approx(sum(values) / 2)
    assert mean["seeds"] == 2
    # Student's t of one degree of freedom: 12.706 standard errors of two values
    reach = 12.706 * abs(values[0] - values[1]) / 2
    assert mean["high"] - mean["value"] == pytest.approx(reach, rel=1e-3)
    assert front.frame()["bytes"].min() > 0


def test_a_codec_of_a_codec_reads_the_networks_of_that(home: Home) -> None:
    codecs = ["subset:num_samples=3", "quantized:bits=8 of subset:num_samples=3"]
    front = gn.codec(
        home.space, codecs, overrides={"teacher.method.num_samples": 8}, out=home.out, limit=64
    )

    by_name: dict[tuple[str, str], Any] = {
        (row["predictor"], row["metric"]): row for row in front.rows
    }
    name = "quantized bits=8 of subset num_samples=3"
    subset = by_name["subset num_samples=3", "average_kl"]
    rounded = by_name[name, "average_kl"]
    assert rounded["codec"] == "quantized of subset"
    # three networks in a quarter of the bytes, biases and scales beside them
    assert subset["bytes"] / 4 < rounded["bytes"] < subset["bytes"] / 2
    assert rounded["value"] == pytest.approx(subset["value"], rel=0.05)
    # it knows no other sample than these three
    assert by_name[name, "energy_to_read"]["value"] == pytest.approx(
        by_name["subset num_samples=3", "energy_to_read"]["value"], rel=0.2
    )


def test_a_study_has_its_student_on_the_picture(own: Home) -> None:
    accepted("codec", own.study, "--codecs", "subset", "--sizes", "1", "--out", own.out)

    folder = own.study / "codec"
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    study = gn.open_study(own.study)
    chosen = study.chosen()
    assert chosen is not None
    student = {row["metric"]: row for row in rows if row["codec"] == "student"}
    files = study.path / "students" / str(chosen.trial)
    sizes = [(files / name).stat().st_size for name in ("spec.json", "weights.safetensors")]
    assert student["energy"]["bytes"] == sum(sizes)
    assert student["average_nll"]["value"] == pytest.approx(chosen.metrics["nll"], abs=1e-6)
    assert "held-out" in student["energy"]["note"]
    drawn = Page((folder / "codec.html").read_text()).embedded("charts")["charts"]
    assert "student" in [trace["name"] for trace in drawn["chart-average-kl"]["data"]]
    # the study is as it was, and may go on
    accepted("show", own.study, "chosen")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "teacher.method.chains=1"), ("found 1, expected at least 2", "yardstick")),
        (("--set", "teacher.method.num_samples=2"), ("found 1 a chain, expected at least 2",)),
        (("--codecs", "sgld"), ("found 'sgld', which keeps no posterior",)),
        (("--codecs", "subsett"), ("subset",)),
        (("--codecs", "subset:num_samples"), ("expected CODEC:KEY=VALUE",)),
        (("--codecs", "quantized:of=subset"), ("expected CODEC:KEY=VALUE", "bits=8 of subset")),
        (("--codecs", "quantized of sgld"), ("found 'sgld', which keeps no posterior",)),
        (("--codecs", "subset:num_samples=3"), ("found 3, expected at most 2", "lower it")),
        (("--sizes", "0"), ("--sizes: found 0",)),
        (("--sizes", "two"), ("--sizes: found 'two'",)),
        (("--seeds", "0"), ("--seeds: found 0",)),
        (("--draws", "1"), ("--draws: found 1",)),
        (("--limit", "0"), ("--limit: found 0",)),
        (("--ood", "nothing"), ("--ood: unknown set 'nothing'",)),
    ],
)
def test_what_cannot_be_coded_is_refused(
    home: Home, arguments: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(2, "codec", home.space, "--out", home.out, *arguments, says=says)
    assert not (home.cache / "streams").exists()  # before a teacher is sampled


def test_settings_of_a_study_are_its_own(own: Home) -> None:
    refused(2, "codec", own.study, *MORE, says=("found with a study",))


def test_a_space_of_real_labels_or_of_a_codec_is_refused(home: Home) -> None:
    text = home.space.read_text()
    real = Path(home.root / "real.yaml")
    real.write_text(text.replace("{name: digits}", "{name: diabetes}").replace("2.0e-4", "1.0e-6"))
    refused(
        *(2, "codec", real, "--set", "teacher.likelihood={name: gaussian}"),
        *("--set", "targets=[predictive_normal]"),
        says=("expected classes",),
    )
    inner = "{name: subset, num_samples: 2, of: {name: sgld, chains: 2, num_samples: 4}}"
    refused(
        *(2, "codec", home.space, "--set", f"teacher.method={inner}"),
        says=("a codec, expected", "--codecs subset"),
    )


def test_settings_within_braces_are_of_one_codec() -> None:
    text = "subset:num_samples=3,apd:online={buffer: 2, updates: 5}:width=4"
    subset, apd = (parse_choice(part) for part in split_choices(text))
    assert subset.settings == {"num_samples": 3}
    assert apd.settings == {"online": {"buffer": 2, "updates": 5}, "width": 4}
    assert str(apd) == 'apd online={"buffer":2,"updates":5} width=4'


def test_sizes_become_the_setting_that_makes_a_codec_larger() -> None:
    assert KNOBS["subset"].value(8, 2) == 8
    assert KNOBS["low_rank"].value(8, 2) == 2  # four networks a chain, two of them mean and spread

    def sizes(codec: str, *asked: int, chains: int = 1) -> list[str]:
        sgld = parse_method({"name": "sgld", "chains": chains, "num_samples": 10}, "test")
        assert isinstance(sgld, ChainConfig)
        return [str(each) for each in choices_of([codec], asked, sgld)]

    assert sizes("subset") == ["subset num_samples=4", "subset num_samples=8"]
    assert sizes("subset", 3, 9) == ["subset num_samples=3", "subset num_samples=9"]
    # a sample of each chain at least
    assert sizes("subset", chains=5) == ["subset num_samples=8"]
    # of a codec over a codec sizes are of both
    names = [f"quantized bits=8 of subset num_samples={num}" for num in (4, 8)]
    assert sizes("quantized:bits=8 of subset") == names
    assert sizes("low_rank of subset:num_samples=5") == ["low_rank rank=2 of subset num_samples=5"]
