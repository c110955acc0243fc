"""Settings of any posterior method that suit a search space, so that methods can be compared
without tuning each.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gped_nas.config import parse, read_yaml
from gped_nas.data.base import Dataset
from gped_nas.errors import ConfigError
from gped_nas.posterior.base import METHODS, ChainConfig, MethodConfig, ThinnedConfig
from gped_nas.posterior.chain import MinibatchConfig
from gped_nas.posterior.sgld import SgldConfig
from gped_nas.search.space import SearchSpace


def method_settings(
    space: SearchSpace, dataset: Dataset, method: str | Path | Mapping[str, Any]
) -> MethodConfig:
    """A method's settings: those given, completed by what suits the space.

    The space's own method keeps its settings. Others get its chains, samples, batch size and number
    of gradients, and step sizes that move as far as its own.

    Args:
        space: whose network, prior and method they are to suit.
        dataset: its dataset.
        method: a name, a YAML file of settings, or settings with ``name``.

    Raises:
        ConfigError: the settings are invalid.
        RegistryError: unknown method.
    """
    given: Mapping[str, Any] = {"name": method} if isinstance(method, str) else {}
    where = f"methods: {method}"
    if isinstance(method, Mapping):
        given, where = method, f"methods: {method.get('name')}"
    elif Path(method).suffix in (".yaml", ".yml"):
        given, where = read_yaml(Path(method)), str(method)
    name = given.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{where}: name: found {name!r}, expected the name of a method")
    config = METHODS[name].config
    start = (
        space.method.model_dump(mode="json")
        if name == space.method.name
        else _suited(name, config, space, dataset)
    )
    found = parse(config, {**start, **given}, where)
    if isinstance(found, ChainConfig) and found.num_samples % found.chains:
        raise ConfigError(
            f"{where}: num_samples: found {found.num_samples}, expected a multiple of chains "
            f"({found.chains})"
        )
    return found


def _suited(
    name: str, config: type[MethodConfig], space: SearchSpace, dataset: Dataset
) -> dict[str, Any]:
    own = space.method
    chains = max(2, own.chains) if isinstance(own, ChainConfig) else 2
    wanted = own.num_samples if isinstance(own, ChainConfig) else 100
    draws = -(-wanted // chains)
    thinning, burn_in = 100, 2000
    if isinstance(own, ThinnedConfig) and isinstance(own, MinibatchConfig):
        thinning, burn_in = own.thinning, own.burn_in
    eta = own.step_size.initial if isinstance(own, SgldConfig) else 0.2 / len(dataset.train)
    suited: dict[str, Any] = {"batch_size": int(getattr(own, "batch_size", 100)), "chains": chains}
    suited["num_samples"] = draws * chains
    suited["steps"] = -(-(burn_in + draws * thinning) // 100) * 100
    if issubclass(config, MinibatchConfig):
        suited |= {
            "thinning": thinning,
            "burn_in": burn_in,
            **_STEP_SIZES.get(name, _no_settings)(eta, thinning),
        }
    if name == "deep_ensemble":
        suited |= {"num_samples": config.model_fields["num_samples"].default, "steps": 2000}
    if name == "hmc":
        suited["leapfrog_steps"] = 100
    kept = set(config.model_fields)
    return {"name": name, **{key: value for key, value in suited.items() if key in kept}}


def _no_settings(eta: float, thinning: int) -> dict[str, Any]:
    return {}


_STEP_SIZES: dict[str, Callable[[float, int], dict[str, Any]]] = {
    "sgld": lambda eta, thinning: {"step_size": {"initial": eta}},
    "psgld": lambda eta, thinning: {"step_size": {"initial": eta / 10}, "damping": 0.05},
    "sghmc": lambda eta, thinning: {
        "step_size": {"initial": eta**0.5},
        "friction": 1 / (10 * eta**0.5),
    },
    "csgld": lambda eta, thinning: {
        "step_size": {"initial": 3 * eta, "length": 10 * thinning},
        "samples_per_cycle": 3,
    },
    "csghmc": lambda eta, thinning: {
        "step_size": {"initial": (3 * eta) ** 0.5, "length": 10 * thinning},
        "samples_per_cycle": 3,
        "friction": 1 / (10 * eta**0.5),
    },
}
"""Settings by method from SGLD's eta, so that sqrt(eta) is about how far a parameter moves in a
step.
"""
