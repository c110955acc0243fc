"""Batch norms of imported networks: what torch computes with them is what is left without."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gped_nas.errors import DataError
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.posterior.base import unflatten
from gped_nas.posterior.folding import fold_batch_norms
from gped_nas.posterior.imported import read_weights

HERE = Path("here")
SHAPE, CLASSES = (3, 8, 8), 4
GENOTYPE = Genotype("cnn", depth=2, width=[5, 6], kernel=3, pool=[2, 1], padding="same")


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, all of it drawn, running statistics too."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return network.eval()


def blocks(**norm: bool) -> nn.Module:
    with torch.random.fork_rng():  # layers draw their first weights globally
        return nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1, bias=False),
            nn.BatchNorm2d(5, **norm),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(5, 6, 3, padding=1),
            nn.BatchNorm2d(6, **norm),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * 4 * 4, CLASSES),
        )


class Named(nn.Module):
    """The same with names of its own, as networks of torchvision have them."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            self.conv1, self.bn1 = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
            self.conv2, self.bn2 = nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)
            self.fc = nn.Linear(6 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)), 2).relu()
        return self.fc(self.bn2(self.conv2(x)).relu().flatten(1))


def pictures() -> Tensor:
    return torch.randn((7, *SHAPE), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "make", [blocks, lambda: blocks(affine=False), Named], ids=["numbers", "no gain", "names"]
)
def test_a_folder_of_networks_with_batch_norm_answers_as_in_torch(make, tmp_path: Path) -> None:
    networks = [randomized(make(), seed) for seed in range(2)]
    for i, network in enumerate(networks):
        save_file(network.state_dict(), tmp_path / f"{i}.safetensors")

    shapes = GENOTYPE.shapes(SHAPE, CLASSES)
    theta_SW, weight_S = read_weights(tmp_path, shapes)

    assert weight_S.tolist() == [1, 1]
    for theta_W, network in zip(theta_SW, networks, strict=True):
        with torch.no_grad():
            answer = FAMILIES["cnn"].forward(unflatten(theta_W, shapes), pictures())
            torch.testing.assert_close(answer, network(pictures()), atol=1e-5, rtol=1e-5)


def test_a_stacked_file_is_folded_member_by_member(tmp_path: Path) -> None:
    networks = [randomized(blocks(), seed) for seed in range(3)]
    states = [network.state_dict() for network in networks]
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    save_file(stacked, tmp_path / "three.safetensors")

    shapes = GENOTYPE.shapes(SHAPE, CLASSES)
    theta_SW, _ = read_weights(tmp_path / "three.safetensors", shapes)
    with torch.no_grad():
        answer = FAMILIES["cnn"].forward(unflatten(theta_SW[2], shapes), pictures())
        torch.testing.assert_close(answer, networks[2](pictures()), atol=1e-5, rtol=1e-5)


def test_another_eps_is_another_network() -> None:
    network = randomized(blocks())
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.3
    folded = fold_batch_norms(network.state_dict(), 0.3, HERE)
    usual = fold_batch_norms(network.state_dict(), 1e-5, HERE)
    assert not torch.allclose(folded["0.weight"], usual["0.weight"])
    expected = network[1](network[0](pictures()))
    found = nn.functional.conv2d(pictures(), folded["0.weight"], folded["0.bias"], padding=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_networks_without_batch_norm_are_left_as_they_are() -> None:
    params = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}
    assert fold_batch_norms(params, 1e-5, HERE) is params


def state(**names: int) -> dict[str, Tensor]:
    """Layers by name to their number of outputs; batch norms are those whose name has ``bn``."""
    tensors = {}
    for name, units in names.items():
        name = name.replace("_", ".").strip(".")
        if "bn" in name or name.startswith("n."):
            tensors |= {f"{name}.running_mean": torch.zeros(units)}
            tensors |= {f"{name}.running_var": torch.ones(units)}
        else:
            tensors |= {f"{name}.weight": torch.ones(units, 3), f"{name}.bias": torch.ones(units)}
    return tensors


REFUSED = {
    "before its layer": state(bn1=3, fc2=3),
    "no number": state(conv=3, bn=3),
    "another parent": state(a_conv1=3, b_bn1=3),
    "two of a number": state(conv1=3, bn1=3, xbn1=3),
    "two layers of a number": state(conv1=3, fc1=3, bn1=3),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_its_name_does_not_tell_is_refused(case: str) -> None:
    with pytest.raises(DataError, match=r"here: .*bn1?: a batch norm, and its name does not"):
        fold_batch_norms(REFUSED[case], 1e-5, HERE)


def test_a_gap_in_the_numbers_may_hold_a_relu_and_is_refused() -> None:
    tensors = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}
    tensors |= {"2.running_mean": torch.zeros(2), "2.running_var": torch.ones(2)}
    with pytest.raises(DataError, match="here: 2: a batch norm"):
        fold_batch_norms(tensors, 1e-5, HERE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"1.running_var": torch.tensor([1.0, -1.0])}, "1.running_var: found -1, expected"),
        ({"1.running_mean": torch.zeros(3)}, "1: found a batch norm with .*expected 2 numbers"),
    ],
)
def test_statistics_that_are_none_are_refused(changed: dict[str, Tensor], message: str) -> None:
    tensors = {"0.weight": torch.ones(2, 3), "1.weight": torch.ones(2), "1.bias": torch.ones(2)}
    tensors |= {"1.running_mean": torch.zeros(2), "1.running_var": torch.ones(2)}
    with pytest.raises(DataError, match=message):
        fold_batch_norms({**tensors, **changed}, 1e-5, HERE)
