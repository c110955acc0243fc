"""What the program says of posteriors.

``teacher info`` says whether one can be trusted, ``teacher compare`` which method to take,
``doctor --posterior`` whether the methods keep their laws.
"""

import csv
import io
import json
import os

import pytest

from gped_nas.api import calibrating
from gped_nas.posterior import selftest as module
from gped_nas.posterior.selftest import Finding
from tests.cli.harness import Home, accepted, call, contents, installed, refused

MIXES = ("--set", "teacher.method.num_samples=12")


def test_info_ends_with_the_verdict_and_tells_what_it_rests_on(own: Home) -> None:
    accepted("teacher", "build", own.space, *MIXES)
    table = accepted("teacher", "info", own.space, *MIXES).out
    for words in (
        "R-hat",
        "ESS",
        "agreement between chains",
        "configurational temperature",
        "nll, one sample (mean)",
    ):
        assert words in table
    assert "kinetic temperature" in table and "not measured: sgld keeps no momenta" in table
    verdict = table.strip().splitlines()[-1]
    assert verdict.startswith(("Trusted: ", "Usable with care: ", "Do not trust: "))
    assert "nan" not in table

    info = json.loads(accepted("teacher", "info", own.space, *MIXES, "--format", "json").out)
    assert f" {info['digest'][:16]}\n" in table and len(info["digest"]) == 64
    assert info["verdict"]["sentence"] == verdict
    assert verdict.lower().startswith(info["verdict"]["level"])
    diagnosis = info["diagnosis"]
    assert set(diagnosis["mixing"]) == {"probabilities", "log_likelihood", "weights"}
    assert (diagnosis["chains"], diagnosis["num_samples"], diagnosis["kinetic"]) == (2, 12, None)
    assert diagnosis["curve"][-1][1] == pytest.approx(info["validation metrics"]["nll"]["value"])

    text = accepted("teacher", "info", own.space, *MIXES, "-f", "csv").out
    pairs = {row["key"]: row["value"] for row in csv.DictReader(io.StringIO(text))}
    assert pairs["verdict"] == verdict
    assert float(pairs["nll, average of all"]) == pytest.approx(diagnosis["average"]["nll"])


TEMPERED = ("--set", "teacher.calibration=temperature")


def test_a_calibrated_teacher_is_said_to_be_one_and_its_study_keeps_it(own: Home) -> None:
    raw = json.loads(accepted("teacher", "info", own.space, "-f", "json").out)
    assert raw["calibration"] is None
    assert "is calibrated on" not in accepted("teacher", "info", own.space).out

    info = json.loads(accepted("teacher", "info", own.space, *TEMPERED, "-f", "json").out)
    fit = info["calibration"]
    assert fit["kind"] == "temperature" and fit["n"] == 288
    assert fit["nll"] == pytest.approx(info["validation metrics"]["nll"]["value"])
    assert fit["nll_raw"] == pytest.approx(raw["validation metrics"]["nll"]["value"])
    assert info["diagnosis"] | {"guess": 0} == raw["diagnosis"] | {"guess": 0}
    assert info["digest"] == raw["digest"]
    said = accepted("teacher", "info", own.space, *TEMPERED).out
    sentence = (
        f"calibrated on validation (temperature {fit['temperature']:g}): NLL {fit['nll']:.4f}"
    )
    assert sentence in said and "Validation chooses students too" in said

    refused(4, "run", own.space, "--out", own.out, *TEMPERED, says=("teacher and dataset",))
    named = ("--study-name", "tempered", *TEMPERED)
    own.run(*named, "--n-trials", "2")
    page = (own.out / "tempered" / "report.html").read_text()
    assert sentence in page and f"temperature {fit['temperature']:g}" in page

    # the study keeps the number that it was begun with, whatever would be fitted now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrating, "fit_calibration", None)
        own.run(*named, "--n-trials", "3")


def test_too_few_draws_are_said_and_not_printed_as_numbers(finished: Home) -> None:
    out = accepted("teacher", "info", finished.space).out
    assert "not measured: 2 draws a chain; at least 4 are needed" in out and "nan" not in out


def test_compare_tabulates_methods_against_the_reference(own: Home) -> None:
    (own.root / "short.yaml").write_text("{name: map, steps: 100}")
    compare = ("teacher", "compare", own.space, "--methods")
    command = (*compare, f"sgld,{own.root / 'short.yaml'}", "--reference", "sgld")
    sgld, point = json.loads(accepted(*command, "--format", "json").out)
    assert (sgld["method"], point["method"]) == ("sgld", "map")
    assert sgld["agreement"] is None
    assert 0 <= point["agreement"] <= 1
    assert 0 <= point["total_variation"] <= 1

    info = json.loads(accepted("teacher", "info", own.space, "--format", "json").out)
    assert sgld["nll"] == pytest.approx(info["validation metrics"]["nll"]["value"])
    assert sgld["verdict"] == info["verdict"]["level"]

    table = accepted(*command).out
    assert "total_variation" in table and len(table.strip().splitlines()) == 3
    refused(2, *compare, "sglld", says=("sglld", "sgld"))
    refused(2, *compare, "sgld", "--reference", "hcm", says=("hcm", "hmc"))


def findings(*failed: str) -> list[Finding]:
    return [
        Finding("sgld", "sgld" not in failed, "minibatches", 1.0, 1.01, 0.2, 0.3, 0.05, 0.1),
        Finding("vi", "vi" not in failed, "local draws", 1.0, 1.01, 0.2, 0.3, 0.05, 0.1),
        Finding("import", None, note="draws nothing"),
    ]


def test_doctor_tells_of_every_method_and_fails_the_gate_when_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "selftest", lambda: findings())
    rows = json.loads(accepted("doctor", "--posterior", "--format", "json").out)
    assert [(row["method"], row["verdict"]) for row in rows] == [
        ("sgld", "ok"),
        ("vi", "ok"),
        ("import", "not tried"),
    ]
    monkeypatch.setattr(module, "selftest", lambda: findings("vi"))
    result = call("doctor", "--posterior")
    assert result.code == 3 and "vi" in result.err and "sgld" not in result.err
    assert "failed" in result.out and "not tried" in result.out


def test_without_shared_memory_one_process_draws_the_same(home: Home, finished: Home) -> None:
    """As in a container, whose /dev/shm has 64 MiB."""
    fault = """
import torch
def refuse(*args, **kwargs):
    file = "</torch_32548_40754_0>"
    raise RuntimeError(f"unable to allocate shared memory(shm) for file {file}: No space left (28)")
torch.UntypedStorage._share_fd_cpu_ = refuse
"""
    (home.root / "sitecustomize.py").write_text(fault)
    path = os.pathsep.join([str(home.root), os.environ.get("PYTHONPATH", "")])
    words = ("teacher", "build", "tiny.yaml", "--processes", "2")
    result = installed(*words, PYTHONPATH=path, GPED_CACHE=str(home.cache))
    assert result.code == 0, result.err
    assert result.err.count("not enough shared memory for 2 processes") == 1

    expected = contents(finished.stream / "segments")
    assert expected and contents(home.stream / "segments") == expected


def test_a_chain_from_a_trained_network_finds_its_step_size_and_keeps_it(home: Home) -> None:
    method = (
        "{name: sghmc, chains: 2, num_samples: %d, burn_in: 20, thinning: 10, "
        "start: {name: map, steps: 100, lr: 0.01}}"
    )
    few = ("--set", f"teacher.method={method % 4}")
    more = ("--set", f"teacher.method={method % 8}")
    built = accepted("teacher", "build", home.space, *few).out
    info = json.loads(accepted("teacher", "info", home.space, *few, "--no-map", "-f", "json").out)
    sizes = info["step sizes found"]
    assert len(sizes) == 2 and all(0 < size < 1 for size in sizes)

    # what is added later is of the same chains
    assert accepted("teacher", "build", home.space, *more).out == built
    later = json.loads(accepted("teacher", "info", home.space, *more, "--no-map", "-f", "json").out)
    assert later["step sizes found"] == sizes
    assert later["posterior samples"] == 8
    table = accepted("teacher", "info", home.space, *more, "--no-map").out
    assert f"{sizes[0]:.3g}, {sizes[1]:.3g}" in table
