"""The members of an ensemble from their architecture and their weights, as live models.

They are what ``distill_from`` and ``record_predictions`` ask, so that an ensemble which lies on
disk needs no predictions made by hand.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gped_nas.errors import ConfigError, DataError
from gped_nas.models.module import ModuleSource, build_module
from gped_nas.models.storage import read_tensors

State = Mapping[str, Tensor] | str | Path
"""A state dict, or a safetensors file of one."""
_MOST_SHOWN = 5


class EnsembleMember(nn.Module):
    """A network that answers with log-probabilities in place of raw outputs.

    Args:
        network: of raw outputs (B, C), or of log-probabilities, which stay what they are.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (B, C), nats.

        Raises:
            DataError: the network answers with anything but raw outputs.
        """
        outputs = self.network(x)
        if not isinstance(outputs, Tensor):
            raise DataError(
                f"found an answer of type {type(outputs).__name__}, expected a tensor of raw "
                "outputs; wrap the network in one that returns them alone"
            )
        is_share = bool((outputs >= 0).all()) and bool(((outputs.sum(-1) - 1).abs() < 1e-4).all())
        if is_share and outputs.shape[-1] > 1:
            raise DataError(
                "found probabilities, expected raw outputs (logits), of which the softmax is taken "
                "here; leave the softmax at the network's end out"
            )
        return outputs.log_softmax(-1)


def load_ensemble(build: ModuleSource, states: Sequence[State]) -> list[EnsembleMember]:
    """The members of an ensemble, in evaluation mode, for ``distill_from``.

    Batch norms are fine here: each member has statistics of its own, which its state holds.

    Args:
        build: a function that builds the network, of raw outputs or log-probabilities; or a module,
            which is copied.
        states: the state dict of each member, or a safetensors file of it.

    Raises:
        ConfigError: there is no state, or ``build`` gives no module.
        DataError: a state is not of this network.
        EnvironmentProblem: a file cannot be read.
    """
    if isinstance(states, Mapping | str | os.PathLike) or not len(states):
        raise ConfigError(
            f"states: found {type(states).__name__}, expected a list of state dicts or safetensors "
            "files, one a member; give a list"
        )

    members = []
    for i, state in enumerate(states):
        network = build_module(build, 0, "build")
        _load(network, state, f"states[{i}]")
        members.append(EnsembleMember(network).eval())
    return members


def _load(network: nn.Module, state: State, where: str) -> None:
    """Give a network the weights of a state.

    Raises:
        DataError: they are not its own.
    """
    if isinstance(state, str | os.PathLike):
        path = Path(state)
        where = f"{where}: {path}"
        if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
            raise DataError(
                f"{where}: found a pickle, which is not opened here, expected safetensors; give "
                "the state dict that torch.load(path, weights_only=True) reads"
            )
        state = read_tensors(path)

    missing, unexpected = _names_apart(network, state)
    if missing or unexpected:
        raise DataError(
            f"{where}: found {_listed(unexpected)} beyond the network's tensors, and without "
            f"{_listed(missing)}, expected those of its state dict; give the state of the network "
            "that build makes"
        )
    for name, value in network.state_dict().items():
        if value.shape != state[name].shape:
            raise DataError(
                f"{where}: {name}: found shape {tuple(state[name].shape)}, expected "
                f"{tuple(value.shape)}; give the state of the network that build makes"
            )
    with torch.no_grad():
        network.load_state_dict(dict(state))


def _names_apart(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """The network's tensors that a state lacks, and what it has beyond them."""
    names = network.state_dict().keys()
    missing = [name for name in names if name not in state]
    return missing, [name for name in state if name not in names]


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _MOST_SHOWN else ""
    return (", ".join(names[:_MOST_SHOWN]) + more) or "none"
