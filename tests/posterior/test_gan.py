"""WGAN with a gradient penalty, and ``gan`` against laws that are known."""

import pytest
import torch

from gped_nas import rng
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.models.base import Params
from gped_nas.posterior.codecs import wgan
from gped_nas.posterior.codecs.base import codec_of
from gped_nas.posterior.codecs.gan import energy_gain
from gped_nas.posterior.codecs.nets import dense_relu, he_start, three_layers
from gped_nas.posterior.codecs.wgan import (
    Game,
    WganConfig,
    fresh_players,
    gradient_penalty,
    play,
)
from tests.posterior.laws import (
    Law,
    banana,
    code_of,
    config_of,
    energy_distance,
    problem_of,
    two_modes,
)


def two_units() -> Params:
    """D(x) = 2 relu(3 x_1 + 4 x_2) + 5 relu(x_1 - 10), whose second unit is off at (1, 1)."""
    params = {
        "weight_1": torch.tensor([[3.0, 4.0], [1.0, 0.0]]),
        "bias_1": torch.tensor([0.0, -10.0]),
        "weight_2": torch.tensor([[2.0, 5.0]]),
        "bias_2": torch.tensor([7.0]),
    }
    return {name: tensor.requires_grad_() for name, tensor in params.items()}


def test_the_penalty_and_its_derivative_are_those_by_hand() -> None:
    params = two_units()
    # a quarter of the way from y to x is (1, 1): the slope there is 2 (3, 4), of length 10
    x_BD, y_BD = torch.tensor([[4.0, 1.0]]), torch.tensor([[0.0, 1.0]])
    penalty = gradient_penalty(
        lambda rows: dense_relu(params, rows), x_BD, y_BD, torch.tensor([[0.25]])
    )
    assert penalty.item() == pytest.approx(81)  # (10 - 1)^2

    penalty.backward()
    # length = a |w| with a = 2 and w = (3, 4): 2 (10 - 1) times |w| = 5, and times a w / |w|
    assert params["weight_2"].grad.tolist() == [pytest.approx([90.0, 0.0])]
    assert params["weight_1"].grad[0].tolist() == pytest.approx([21.6, 28.8])
    assert params["weight_1"].grad[1].tolist() == [0, 0]


def test_where_all_units_are_off_the_penalty_still_has_a_finite_derivative() -> None:
    params = two_units()
    off_BD = torch.tensor([[-3.0, -3.0]])
    penalty = gradient_penalty(
        lambda rows: dense_relu(params, rows), off_BD, off_BD, torch.tensor([[0.5]])
    )
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    penalty.backward()
    assert all(
        bool(tensor.grad.isfinite().all()) for tensor in params.values() if tensor.grad is not None
    )


def test_every_step_of_the_critic_has_rows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def remember(critic, x_BD, y_BD, share_B1):  # type: ignore[no-untyped-def]
        shown.append(x_BD.clone())
        return gradient_penalty(critic, x_BD, y_BD, share_B1)

    monkeypatch.setattr(wgan, "gradient_penalty", remember)
    generator = rng.generator(0, "rows")
    game = Game(three_layers(2, 4, 3), three_layers(3, 4, 1), dense_relu, latent=2)
    start = fresh_players(
        he_start(game.generator, generator=generator), he_start(game.critic, generator=generator)
    )
    cfg = WganConfig(name="gan", batch_size=6)
    x_SD, weight_S = torch.randn(40, 3, generator=generator), torch.ones(40)
    states = play(
        game, cfg, x_SD, weight_S, until=50, start=start, device=x_SD.device, generator=generator
    )
    assert int(next(states)["iterations"]) == 50
    # five steps an update, of six rows each
    assert len(shown) == 50 * 5
    assert len({rows.numpy().tobytes() for rows in shown[:5]}) == 5


def test_the_gain_is_what_the_energy_distance_falls_by() -> None:
    generator = rng.generator(0, "gain")
    normal, drawn, held = (torch.randn(n, 2, generator=generator) for n in (40, 30, 20))
    gain_N = energy_gain(normal, drawn + 1, held)

    def distance(points: torch.Tensor) -> float:
        across = [float((a - b).norm()) for a in points for b in held]
        within = [float((a - b).norm()) for a in points for b in points]
        return 2 * sum(across) / len(across) - sum(within) / len(within)

    expected = distance(normal) - distance(drawn + 1)
    assert float(gain_N.mean()) == pytest.approx(expected, abs=1e-5)


def distances(law: Law, **settings: float) -> tuple[float, float]:
    """Energy distances of ``gan`` and of the normal law it starts from, to 2,000 fresh points."""
    cfg = config_of("gan", 400, components=2, **settings)
    code = code_of(problem_of(law(400, rng.generator(0, "points"))), cfg)
    normal = config_of("low_rank", 400, rank=2, variance=1.0)
    of_normal = code_of(problem_of(law(400, rng.generator(0, "points"))), normal)

    truth = law(2000, rng.generator(0, "truth"))
    generator = rng.generator(0, "draws")
    drawn = codec_of("gan").draws(code, 2000, generator=generator)
    plain = codec_of("low_rank").draws(of_normal, 2000, generator=generator)
    return energy_distance(drawn, truth), energy_distance(plain, truth)


# 400 other points of the law itself have a distance of 0 with a standard deviation of .003
def test_two_modes_are_recovered() -> None:
    quick = {"width": 32, "iterations": 300, "critic_steps": 2, "batch_size": 64, "lr": 3e-3}
    of_gan, of_normal = distances(two_modes, **quick)
    assert of_gan < 0.04 and of_normal > 0.12, (of_gan, of_normal)


# the default settings: a banana comes half of the way (.021 of .047; ``flow`` has .003)
@pytest.mark.soak
@pytest.mark.parametrize(("law", "tolerance"), [(banana, 0.03), (two_modes, 0.02)])
def test_laws_that_are_not_normal_are_recovered(law: Law, tolerance: float) -> None:
    of_gan, of_normal = distances(law)
    assert of_gan < tolerance < 0.7 * of_normal, (of_gan, of_normal)


def test_a_training_that_diverges_says_what_to_lower() -> None:
    problem = problem_of(banana(40, rng.generator(0, "points")))
    cfg = config_of("gan", 40, components=2, width=8, iterations=100, lr=1e30)
    with pytest.raises(DivergenceError, match=r"gan: generator and critic .*; lower teacher"):
        code_of(problem, cfg)


def test_a_number_of_updates_after_which_no_state_is_kept_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"iterations: found 120, expected a multiple of 50"):
        config_of("gan", 40, components=2, iterations=120)


def test_more_components_than_a_chain_spans_are_refused() -> None:
    with pytest.raises(ConfigError, match="components: found 40, expected at most 39"):
        config_of("gan", 40, components=40)
