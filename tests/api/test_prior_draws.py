"""What draws from a prior say: in closed form for linear networks, by loops for others."""

import csv
import io
import json
import math

import pytest
import torch

import gped_nas as gn
from gped_nas import rng
from gped_nas.api.prior_draws import _mean_turns, describe_prior
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES
from tests.cli.harness import Home, accepted, refused

LINEAR = {"teacher.genotype": {"depth": 0}, "teacher.prior": {"precision": 4.0}}


def test_the_prior_of_a_linear_regression_has_the_deviation_of_its_closed_form() -> None:
    """w x + b with precision 4: a variance of (|x|^2 + 1) / 4 in the unit of the labels."""
    space = gn.load_space("diabetes_mlp", LINEAR)
    data = gn.load_dataset(space)
    prior = describe_prior(space, num_draws=2000)

    unit = data.label_normalization
    assert unit is not None
    square_N = data.inputs("validation").square().sum(1)
    std = unit.std * math.sqrt(float((square_N + 1).mean()) / 4)
    # 2,000 draws: 1.6 % of standard error
    assert prior.numbers["function_std"] == pytest.approx(std, rel=0.03)
    assert prior.numbers["mean"] == pytest.approx(unit.mean, abs=0.1 * std)
    # 90 % of a normal lie within 1.645 deviations; those of inputs differ
    width = prior.numbers["mean_high"] - prior.numbers["mean_low"]
    assert width == pytest.approx(2 * 1.645 * std, rel=0.1)

    noise = space.likelihood.noise_std  # type: ignore[attr-defined]
    assert prior.numbers["noise_std"] == pytest.approx(noise * unit.std)
    assert prior.numbers["label_std"] == pytest.approx(unit.std)
    assert prior.classes == () and prior.num_inputs == len(square_N)


def test_linear_functions_are_straight_along_the_direction_of_most_variance() -> None:
    space = gn.load_space("diabetes_mlp", LINEAR)
    line = describe_prior(space, num_draws=6).line
    values = torch.tensor(line.draws, dtype=torch.float64)
    assert values.shape == (6, len(line.places)) and line.turns == 0
    assert (line.places[0], line.places[-1]) == (-3.0, 3.0)
    bend = values.diff(dim=1).diff(dim=1)
    assert bend.abs().max() < 1e-3 * values.diff(dim=1).abs().max()

    # the draws' own weights: along the first principal direction v they rise by std * w v a place
    data = gn.load_dataset(space)
    x = data.inputs("train").double()
    index = torch.linspace(0, len(x) - 1, 256).round().long()
    _, singular, directions = torch.linalg.svd(x[index] - x[index].mean(0))
    params = space.prior.sample(
        {"layers.0.weight": (1, 10), "layers.0.bias": (1,)},
        generator=rng.generator(space.seed, "prior", 0),
    )
    unit = data.label_normalization
    assert unit is not None
    rise = float(params["layers.0.weight"].double() @ directions[0]) * float(singular[0]) / 16
    actual = float(values[0, -1] - values[0, 0])
    assert abs(actual) == pytest.approx(abs(rise) * 6 * unit.std, rel=1e-3)
    medians = values.quantile(0.5, dim=0).tolist()
    assert line.median == pytest.approx(medians)


def test_turns_are_counted_where_a_function_changes_its_direction() -> None:
    up_and_down, rising, flat = [0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0]
    assert _mean_turns(torch.tensor([up_and_down, rising, flat])) == pytest.approx(2 / 3)


def test_numbers_of_classes_are_those_of_loops_over_draws(finished: Home) -> None:
    space = gn.load_space(finished.space)
    data = gn.load_dataset(space)
    prior = describe_prior(space, num_draws=5)

    index = torch.linspace(0, len(data.validation) - 1, prior.num_inputs).round().long()
    x = data.inputs("validation")[index].double()
    shapes = space.network.shapes(data.input_shape, 10)
    prob = []
    for draw in range(5):
        params = space.prior.sample(shapes, generator=rng.generator(space.seed, "prior", draw))
        double = {name: value.double() for name, value in params.items()}
        prob.append(FAMILIES["mlp"].forward(double, x).softmax(-1))

    shares = [[float((p.argmax(1) == c).double().mean()) for c in range(10)] for p in prob]
    average = sum(prob) / 5
    labels = data.labels("train")
    for c, described in enumerate(prior.classes):
        assert described.name == str(c)
        assert described.probability == pytest.approx(float(average[:, c].mean()), abs=1e-5)
        assert described.share == pytest.approx(sum(share[c] for share in shares) / 5)
        assert described.labels == pytest.approx((labels == c).mean())

    entropies = [torch.special.entr(p).sum(1) for p in prob]
    numbers = prior.numbers
    expected = float(torch.stack(entropies).mean())
    total = float(torch.special.entr(average).sum(1).mean())
    assert numbers["expected_entropy"] == pytest.approx(expected, rel=1e-3)
    assert numbers["entropy"] == pytest.approx(total, rel=1e-4)
    assert numbers["mutual_information"] == pytest.approx(total - expected, rel=1e-3)
    assert numbers["uniform_entropy"] == pytest.approx(math.log(10))
    assert numbers["favorite_share"] == pytest.approx(sorted(max(s) for s in shares)[2])
    most_frequent = max(range(10), key=lambda c: (labels == c).sum())
    assert prior.line.of == f"probability of {most_frequent}"
    assert all(0 <= value <= 1 for values in prior.line.draws for value in values)

    more = describe_prior(space, num_draws=8).line.draws
    assert more[:5] == prior.line.draws


def test_the_prior_is_shown_before_any_sampling_and_nothing_is_written(home: Home) -> None:
    words = ("teacher", "info", home.space, "--prior")
    described = json.loads(accepted(*words, "--format", "json").out)
    prior = describe_prior(gn.load_space(home.space))
    assert {key: described[key] for key in prior.to_json()} == json.loads(
        json.dumps(prior.to_json())
    )

    table = accepted(*words).out
    for text in ("gaussian, precision 10.0", "favorite share", "uniform entropy", "share_low"):
        assert text in table
    assert "probability of" in table and "draw 4" in table
    pairs = csv.DictReader(io.StringIO(accepted(*words, "-f", "csv").out))
    values = {row["key"]: row["value"] for row in pairs}
    assert values["draws"] == "100" and values["expected entropy"].startswith(
        f"{prior.numbers['expected_entropy']:.4g}, of 90 % from "
    )

    tanh = accepted(*words, "--set", "teacher.genotype.activation=tanh").out
    assert tanh != table and "activation=tanh" in tanh
    assert not home.cache.exists()


def test_a_teacher_without_networks_has_no_prior(home: Home) -> None:
    (home.root / "given.npz").write_bytes(b"")
    words = ("teacher", "info", home.space, "--prior", "--set", "teacher={predictions: given.npz}")
    refused(2, *words, says=("known by its predictions alone", "which have a prior"))
    with pytest.raises(ConfigError, match="num_draws: found 1, expected at least 2"):
        describe_prior(gn.load_space(home.space), num_draws=1)
