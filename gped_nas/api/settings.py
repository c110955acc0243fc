"""Settings of any posterior method that suit a search space.

With them methods can be compared without tuning each.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gped_nas.config import read_yaml
from gped_nas.data.base import Dataset
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    Method,
    MethodConfig,
    ThinnedConfig,
    parse_method,
)
from gped_nas.posterior.budget import Budget
from gped_nas.posterior.chain import MinibatchConfig
from gped_nas.posterior.sgld import SgldConfig
from gped_nas.search.space import SearchSpace


def method_settings(
    space: SearchSpace, dataset: Dataset, method: str | Path | Mapping[str, Any]
) -> MethodConfig:
    """A method's settings: those given, completed by what suits the space.

    The space's own method keeps its settings. Others get its chains, samples, batch size and number
    of gradients, and what they themselves say suits such a budget. A method that reads another
    one's samples reads those of the space's own method, if it does not say of which one.

    Args:
        space: whose network, prior and method they are to suit.
        dataset: its dataset.
        method: a name, a YAML file of settings, or settings with ``name``.

    Raises:
        ConfigError: the settings are invalid.
        RegistryError: unknown method.
    """
    explicit, source = _read_settings(method)
    registered = METHODS.named(explicit, "name", source)
    if explicit["name"] == space.method.name:
        suited = space.method.model_dump(mode="json")
    elif registered.reads_samples:
        suited = _suit_reading(registered, space.method)
        explicit = {**explicit, **_read_of(space, dataset, explicit)}
    else:
        suited = _suit(registered, budget_of(space, dataset))
    return parse_method({**suited, **explicit}, source)


def _read_settings(method: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The settings that a caller wrote, and where messages say that they are from."""
    if isinstance(method, Mapping):
        return method, f"methods: {method.get('name')}"
    if Path(method).suffix in (".yaml", ".yml"):
        return read_yaml(Path(method), "method"), str(method)
    return ({"name": method} if isinstance(method, str) else {}), f"methods: {method}"


def budget_of(space: SearchSpace, dataset: Dataset) -> Budget:
    """What the space's own method spends, with at least two chains, which can be compared."""
    cfg = space.method
    chains, num_samples = 2, 100
    if isinstance(cfg, ChainConfig):
        chains, num_samples = max(2, cfg.chains), cfg.num_samples

    thinning, burn_in = 100, 2000
    if isinstance(cfg, ThinnedConfig) and isinstance(cfg, MinibatchConfig):
        thinning, burn_in = cfg.thinning, cfg.burn_in

    given = cfg.step_size.initial if isinstance(cfg, SgldConfig) else None
    step_size = 0.2 / len(dataset.train) if given is None else given
    samples_a_chain = -(-num_samples // chains)
    return Budget(
        chains=chains,
        num_samples=samples_a_chain * chains,
        batch_size=int(getattr(cfg, "batch_size", 100)),
        burn_in=burn_in,
        thinning=thinning,
        step_size=step_size,
    )


def _suit_reading(method: Method, own: MethodConfig) -> dict[str, Any]:
    """What a method reads where it does not say it, and as many draws as are read."""
    suited: dict[str, Any] = {"of": own.model_dump(mode="json")}
    if issubclass(method.config, ChainConfig) and isinstance(own, ChainConfig):
        suited["num_samples"] = own.num_samples
    return suited


def _read_of(
    space: SearchSpace, dataset: Dataset, explicit: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The method that is read, completed as well; nothing where none is given."""
    of = explicit.get("of")
    if not isinstance(of, Mapping) or "name" not in of:
        return {}
    return {"of": method_settings(space, dataset, of).model_dump(mode="json")}


def _suit(method: Method, budget: Budget) -> dict[str, Any]:
    """The settings that methods share, as far as this one has them, and those it names itself."""
    shared = {
        "batch_size": budget.batch_size,
        "chains": budget.chains,
        "num_samples": budget.num_samples,
        "steps": budget.steps,
    }
    if issubclass(method.config, MinibatchConfig):
        shared |= {"thinning": budget.thinning, "burn_in": budget.burn_in}
    settings = {name: shared[name] for name in shared if name in method.config.model_fields}

    return {**settings, **method.suited(budget)} if method.suited else settings
