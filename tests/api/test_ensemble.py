"""Members of an ensemble from their weights, and from there to predictions in one call."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import gped_nas as gn
from gped_nas.api.from_models import _describe
from gped_nas.errors import ConfigError, DataError


def build() -> nn.Module:
    """With a batch norm, whose statistics are a member's own."""
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


def trained() -> list[nn.Module]:
    """Two networks whose batch norms have seen data."""
    networks = []
    with torch.random.fork_rng():
        for seed in range(2):
            network = build()
            network(torch.randn(20, 4) + seed)
            networks.append(network.eval())
    return networks


def test_members_say_what_their_weights_say(tmp_path: Path) -> None:
    networks = trained()
    path = tmp_path / "second.safetensors"
    save_file(networks[1].state_dict(), path)
    before = torch.get_rng_state()
    members = gn.load_ensemble(build, [networks[0].state_dict(), path])
    assert torch.equal(torch.get_rng_state(), before)

    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    file = gn.record_predictions(members, x.numpy(), out=tmp_path / "two.npz")
    recorded = np.load(file)["log_prob"]
    expected = torch.stack([network(x).log_softmax(-1) for network in networks])
    assert np.allclose(recorded, expected.detach().numpy(), atol=1e-6)
    assert _describe(members, x[:1], None)["teacher.name"] == "2 x Sequential"
    assert _describe(members, x[:1], None)["teacher.macs"] == 2 * (4 * 6 + 6 * 3)


def test_log_probabilities_stay_what_they_are_and_probabilities_are_refused(
    tmp_path: Path,
) -> None:
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        log = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1))
        shares = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
    (member,) = gn.load_ensemble(log, [log.state_dict()])
    assert torch.allclose(member(x), log(x), atol=1e-6)

    members = gn.load_ensemble(shares, [shares.state_dict()])
    refusal = r"models\[0\]: found probabilities, .*; leave the softmax at the network's end out$"
    with pytest.raises(DataError, match=refusal):
        gn.record_predictions(members, x.numpy(), out=tmp_path / "never.npz")


class Pair(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x), x  # type: ignore[return-value]


def test_states_of_other_networks_are_refused(tmp_path: Path) -> None:
    state = trained()[0].state_dict()
    with pytest.raises(DataError, match=r"states\[0\]: found extra beyond .* without none"):
        gn.load_ensemble(build, [{**state, "extra": torch.ones(1)}])
    del state["2.bias"]
    with pytest.raises(DataError, match=r"states\[0\]: found none beyond .* without 2.bias"):
        gn.load_ensemble(build, [state])
    with pytest.raises(DataError, match=r"2.bias: found shape \(5,\), expected \(3,\)"):
        gn.load_ensemble(build, [{**state, "2.bias": torch.ones(5)}])

    for path in ("member.pt", "member.pth"):
        with pytest.raises(DataError, match="found a pickle.*weights_only=True"):
            gn.load_ensemble(build, [tmp_path / path])
    with pytest.raises(DataError, match="no such file"):
        gn.load_ensemble(build, [tmp_path / "member.safetensors"])
    with pytest.raises(ConfigError, match="states: found OrderedDict, expected a list"):
        gn.load_ensemble(build, state)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="build: found a function that gives a int"):
        gn.load_ensemble(lambda: 1, [state])  # type: ignore[arg-type, return-value]
    with torch.random.fork_rng():
        pair = Pair(4, 3)
    (member,) = gn.load_ensemble(pair, [pair.state_dict()])
    with pytest.raises(DataError, match="found an answer of type tuple"):
        member(torch.ones(2, 4))
