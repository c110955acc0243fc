"""What every registered posterior method promises, on one small classifier."""

import itertools
import re
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError
from gped_nas.models.base import num_params
from gped_nas.posterior.base import METHODS, Method, MethodConfig
from tests.scenarios import GENOTYPES, METHOD_SETTINGS, classifier

NAMES = sorted(METHOD_SETTINGS)
LONGEST = 8
TEMPERED = {"sgld", "psgld", "sghmc", "csgld", "csghmc"}


@pytest.fixture(autouse=True)
def _samples_to_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write_samples_to_import(classifier().shapes)


def _write_samples_to_import(shapes):
    generator = rng.generator(0, "to import")
    tensors = {name: torch.randn(4, *shape, generator=generator) for name, shape in shapes.items()}
    Path("samples.safetensors").write_bytes(safetensors.torch.save(tensors))


def run(name, *, state=None, seed=0):
    cfg = parse(METHODS[name].config, {"name": name, **METHOD_SETTINGS[name]}, name)
    generator = rng.generator(seed, "posterior", 0)
    steps = METHODS[name](classifier(), cfg, generator=generator, state=state)
    return list(itertools.islice(steps, LONGEST))


def same(first, second):
    """Whether two runs yielded the same samples and states, to the bit."""
    if len(first) != len(second):
        return False
    return all(_same_step(a, b) for a, b in zip(first, second, strict=True))


def _same_step(a, b):
    if a.state.keys() != b.state.keys() or (a.sample is None) != (b.sample is None):
        return False
    if not all(torch.equal(a.state[name], b.state[name]) for name in a.state):
        return False
    return a.sample is None or (
        torch.equal(a.sample.theta_W, b.sample.theta_W) and a.sample.weight == b.sample.weight
    )


def test_every_registered_method_is_tested():
    assert set(METHOD_SETTINGS) == set(METHODS)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_finite_float32_of_the_problems_size(name):
    samples = [step.sample for step in run(name) if step.sample is not None]
    assert samples
    for sample in samples:
        assert sample.theta_W.shape == (num_params(classifier().shapes),)
        assert sample.theta_W.dtype == torch.float32
        assert sample.theta_W.isfinite().all()
        assert sample.weight >= 0
        assert not sample.theta_W.requires_grad


@pytest.mark.parametrize(
    "genotype", [GENOTYPES["cnn"][1], GENOTYPES["resnet"][0]], ids=lambda g: g.family
)
@pytest.mark.parametrize("name", NAMES)
def test_every_family_can_be_the_teacher(name, genotype):
    problem = classifier(genotype)
    _write_samples_to_import(problem.shapes)
    settings = {"name": name, **METHOD_SETTINGS[name]}
    settings |= {"steps": 100} if "steps" in settings else {}
    steps = METHODS[name](
        problem, parse(METHODS[name].config, settings, name), generator=rng.generator(0, "family")
    )
    sample = next(step.sample for step in steps if step.sample is not None)
    assert sample.theta_W.shape == (num_params(problem.shapes),)
    assert sample.theta_W.isfinite().all() and sample.theta_W.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_state_is_named_tensors_a_stream_can_hold(name):
    for step in run(name):
        assert all(re.fullmatch(r"[a-z_]+", key) for key in step.state)
        kinds = {t.numpy().dtype.str for t in step.state.values()}
        assert kinds <= {"<f2", "<f4", "<f8", "<i8", "<i4", "|i1", "|u1"}


@pytest.mark.parametrize("name", NAMES)
def test_stopping_anywhere_and_resuming_gives_the_same_bits(name):
    whole = run(name)
    for stop, step in enumerate(whole):
        # the generator handed over is a fresh one of another seed: the state alone decides
        rest = run(name, state={k: t.clone() for k, t in step.state.items()}, seed=99)
        assert same(rest[: len(whole) - stop - 1], whole[stop + 1 :])


@pytest.mark.parametrize("name", NAMES)
def test_what_was_yielded_is_never_changed_later(name):
    cfg = parse(METHODS[name].config, {"name": name, **METHOD_SETTINGS[name]}, name)
    steps = METHODS[name](classifier(), cfg, generator=rng.generator(0, "posterior", 0))
    kept, copies = [], []
    for step in itertools.islice(steps, LONGEST):
        kept.append(step)
        copies.append({k: t.clone() for k, t in step.state.items()})
    for step, copy in zip(kept, copies, strict=True):
        assert all(torch.equal(step.state[k], copy[k]) for k in copy)


@pytest.mark.parametrize("name", NAMES)
def test_resuming_leaves_the_state_that_was_given_alone(name):
    state = run(name)[0].state
    before = {k: t.clone() for k, t in state.items()}
    run(name, state=state)
    assert all(torch.equal(state[k], before[k]) for k in before)


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_decides_and_nothing_else(name):
    assert same(run(name), run(name))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused_and_settings_are_frozen(name):
    method = METHODS[name]
    assert isinstance(method, Method)
    assert issubclass(method.config, MethodConfig)
    with pytest.raises(ConfigError, match="nonsense: unknown key"):
        parse(method.config, {"name": name, **METHOD_SETTINGS[name], "nonsense": 1}, name)
    cfg = parse(method.config, {"name": name, **METHOD_SETTINGS[name]}, name)
    with pytest.raises(ValidationError):
        cfg.name = "other"
    # the resolved settings read back as the same settings
    assert parse(method.config, cfg.model_dump(mode="json"), name) == cfg


@pytest.mark.parametrize("name", NAMES)
def test_a_temperature_is_a_setting_where_the_method_has_one_and_refused_elsewhere(name):
    settings = {"name": name, **METHOD_SETTINGS[name], "temperature": 0.5}
    if name in TEMPERED:
        assert parse(METHODS[name].config, settings, name).temperature == 0.5
    else:
        with pytest.raises(ConfigError, match="temperature: unknown key"):
            parse(METHODS[name].config, settings, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answer", ["Choose it", "costs?", "bias", "Sources?:"])
def test_its_page_says_when_to_choose_it_its_cost_its_bias_and_its_source(name, answer):
    page = sys.modules[METHODS[name].run.__module__].__doc__
    assert re.search(rf"\b{answer}", page, re.IGNORECASE)
