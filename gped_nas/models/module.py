"""A teacher's network that is any ``nn.Module``, as pure functions of its named parameters.

A user gives a function that builds it, a module, or a program of ``torch.export``. It is known from
outside alone: which parameters it has, and what it answers. So it cannot be pruned, stored or
exported, which students are, and is a teacher's alone.

* **Parameters** are those that require a gradient, under their own names and in their own order.
* **Constants** are buffers and frozen parameters, as they are in a module built under the seed 0.
* It is in evaluation mode: dropout is off.
* A chain begins with the parameters of its constructor, which runs with torch's global generator
  seeded from the chain's own one and put back after; or with a draw from the prior (``initial:
  prior``). A module that is given as it is, and a program, have one set of parameters, where every
  chain begins.

``module_probe`` says what is refused, and what of it is in the key of a stream.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.export import ExportedProgram
from torch.func import functional_call
from torch.nn.modules.dropout import _DropoutNd

from gped_nas.errors import ConfigError, calling, nearest
from gped_nas.models.base import FAMILIES, Family, Genotype, Params, Shapes, Value
from gped_nas.models.elementary import Elementary, run_layers
from gped_nas.models.module_probe import ModuleFacts, probe
from gped_nas.models.storage import storage_bytes
from gped_nas.models.values import check_names, word

FAMILY = "module"
ModuleSource = Callable[[], nn.Module] | nn.Module | ExportedProgram
"""What builds a module."""
Modules = Mapping[str, ModuleSource]
"""What builds the modules of a space, by the names that it has for them."""

_SEED = 0
"""Of the module whose constants are taken, and whose answers are looked at."""
_INITIAL = ("constructor", "prior")


class ModuleFamily(Family):
    """The family ``module``: the registered one, or one that knows its module.

    Genotype values: ``name``, under which Python gives the module, and ``initial``.

    Args:
        name: of the module.
        source: what builds it; None where it can be read of alone.
        facts: what an earlier run found of it; None where nothing is known.
        where: file and key, for messages.
    """

    defaults = {"initial": "constructor"}

    def __init__(
        self,
        name: str = "teacher",
        source: ModuleSource | None = None,
        facts: ModuleFacts | None = None,
        where: str = "teacher.family",
    ) -> None:
        self.module_name, self.where = name, where
        self._source = source
        self._facts = [facts] if facts and source is None else []
        self._constants: dict[tuple[torch.device, torch.dtype], Params] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        facts = self._facts[0] if self._facts else None
        return ModuleFamily, (self.module_name, self._source, facts, self.where)

    @property
    def is_bound(self) -> bool:
        """Whether the module can be built."""
        return self._source is not None

    def require(self) -> None:
        """Refuse what has to build the module where it cannot be built.

        Raises:
            ConfigError: it cannot.
        """
        if self._source is None:
            raise ConfigError(
                f"{self.where}: found the module '{self.module_name}', which Python alone can "
                "build, and this needs its network; call gped_nas.run(space, modules="
                f"{{'{self.module_name}': build}}) in Python, or read of a stream that is there by "
                "the config.yaml of its study"
            )

    def facts(self, input_shape: tuple[int, ...], num_outputs: int) -> ModuleFacts:
        """What is known of the module for inputs and outputs of a dataset.

        Raises:
            ConfigError: it is not built here, and an earlier run found nothing for such data; or it
                is refused, see ``module_probe``.
        """
        for facts in self._facts:
            if (facts.input_shape, facts.num_outputs) == (input_shape, num_outputs):
                return facts
        if self._source is None and self._facts:
            known = self._facts[0]
            raise ConfigError(
                f"{self.where}: module '{self.module_name}': known for inputs of shape "
                f"{known.input_shape} and {known.num_outputs} outputs, but the dataset has "
                f"{input_shape} and {num_outputs}; run it in Python again"
            )

        self.require()
        facts = probe(self._module, input_shape, num_outputs, self._called)
        self._check_first_parameters()
        self._facts.append(facts)
        return facts

    def identity(self, input_shape: tuple[int, ...], num_outputs: int) -> dict[str, Any]:
        """What a stream's key says of it: its parameters, and the digest of its answers."""
        facts = self.facts(input_shape, num_outputs)
        return {"parameters": list(facts.parameters), "answers": facts.answers}

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``."""
        check_names(values, ("name", "initial"))
        name = values.get("name", "teacher")
        if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 100:
            raise ConfigError(f"name: found {name!r}, expected the name of a module")
        return {
            "name": name,
            "initial": word("initial", values.get("initial", _INITIAL[0]), _INITIAL),
        }

    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """See ``Family.shapes``. Raises as ``facts``."""
        return self.facts(input_shape, num_outputs).shapes

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """See ``Family.forward``.

        Raises:
            ConfigError: the module cannot be built here.
            RegistryError: its own code raised.
        """
        self.require()
        everything = {**self._constants_as(x), **params}
        with calling(self._called, "mend its forward pass"):
            outputs: Tensor = functional_call(self._module, everything, (x,))
        return outputs

    def has_own_start(self, values: Mapping[str, Any]) -> bool:
        """See ``Family.has_own_start``."""
        return bool(values["initial"] == "constructor")

    def initialize(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Family.initialize``: the parameters of a module built under a seed of its own."""
        self.require()
        seed = int(torch.randint(2**62, (), generator=generator))
        built = parameters_of(self._build(seed))
        return {name: built[name].float() for name in shapes}

    def layers(self, params: Params) -> list[Elementary] | None:
        """See ``Family.layers``: what the module's own ``elementary_layers(params)`` gives.

        Raises:
            ConfigError: the module cannot be built here, or they are not its forward.
            RegistryError: its own code raised.
        """
        self.require()
        give = getattr(self._module, "elementary_layers", None)
        if give is None:
            return None
        with calling(self._called, "mend its elementary_layers"):
            layers: list[Elementary] = list(give(params))
        if self._facts:
            self._check_layers(layers, params, self._facts[0].input_shape)
        return layers

    @property
    def why_no_layers(self) -> str:
        """See ``Family.why_no_layers``."""
        return "it has no method elementary_layers(params), which gives its layers"

    def head(self, shapes: Shapes) -> None:
        """See ``Family.head``: which layer is the last one, names do not say."""
        return None

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``, by submodule; without the operators that nobody counts."""
        for facts in self._facts:
            if facts.input_shape == input_shape and facts.shapes == shapes:
                return dict(facts.macs) or {"": 0}
        return {name: prod(shape) for name, shape in shapes.items()}

    def costs(self, input_shape: tuple[int, ...], num_outputs: int) -> dict[str, int]:
        """The costs of one network, by name: those of its operators where all can be counted."""
        facts = self.facts(input_shape, num_outputs)
        shapes = facts.shapes
        num_params = sum(prod(shape) for shape in shapes.values())
        costs = {"params": num_params, "storage_bytes": storage_bytes(shapes, "float32")}
        if facts.is_counted:
            macs = sum(facts.macs.values())
            costs |= {"macs": macs, "flops": 2 * macs}
        return costs

    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the module, in sentences; nothing where it is not built."""
        if self._source is None:
            return ()
        off = [name for name, part in self._module.named_modules() if isinstance(part, _DropoutNd)]
        if not off:
            return ()
        return (f"The dropout of the teacher's module ({', '.join(off)}) is off, in training too.",)

    @property
    def _called(self) -> str:
        return f"{self.where}: module '{self.module_name}'"

    @cached_property
    def _module(self) -> nn.Module:
        return self._build(_SEED)

    def _build(self, seed: int) -> nn.Module:
        assert self._source is not None, "asked before"
        return build_module(self._source, seed, self._called)

    def _constants_as(self, x: Tensor) -> Params:
        """Buffers and frozen parameters on the device of inputs, in their type."""
        key = x.device, x.dtype
        if key not in self._constants:
            self._constants[key] = constants_of(self._module, like=x)
        return self._constants[key]

    def _check_layers(
        self, layers: list[Elementary], params: Params, input_shape: tuple[int, ...]
    ) -> None:
        """Refuse layers of another function than the module is.

        Raises:
            ConfigError: they answer otherwise.
        """
        generator = torch.Generator().manual_seed(_SEED)
        x = torch.randn(4, *input_shape, generator=generator).double()
        expected = self.forward(params, x)
        with calling(self._called, "mend its elementary_layers"):
            answers = run_layers(layers, x)
        scale = max(1.0, float(expected.abs().max()))
        is_same = answers.shape == expected.shape
        if not is_same or not torch.allclose(answers, expected, rtol=0, atol=1e-9 * scale):
            raise ConfigError(
                f"{self._called}: found elementary_layers that answer otherwise than its forward, "
                "expected the same network; mend one of them"
            )

    def _check_first_parameters(self) -> None:
        """Refuse a function that draws its parameters from elsewhere than torch's generator.

        Raises:
            ConfigError: two modules of one seed differ.
        """
        first, again = parameters_of(self._module), parameters_of(self._build(_SEED))
        for name, value in first.items():
            if name not in again or not torch.equal(value, again[name]):
                raise ConfigError(
                    f"{self._called}: built twice under one seed, it has two different parameters "
                    f"'{name}', expected one; draw them from torch's own generator alone"
                )


def build_module(source: ModuleSource, seed: int, where: str) -> nn.Module:
    """A fresh module in evaluation mode; torch's global generator is left as it was.

    Args:
        source: what builds it.
        seed: of torch's global generator meanwhile.
        where: what it is called in messages.

    Raises:
        ConfigError: what was built is no module.
        RegistryError: the function raised.
    """
    with _seeded(seed), calling(where, "mend the function that builds it"):
        if isinstance(source, ExportedProgram):
            return source.module()  # its mode was fixed when it was exported
        module = copy.deepcopy(source) if isinstance(source, nn.Module) else source()

    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{where}: found a function that gives a {type(module).__name__}, expected a torch "
            "module; return one"
        )
    return module.eval()


def parameters_of(module: nn.Module) -> Params:
    """The parameters that are sampled, on the CPU."""
    params = {}
    for name, value in module.named_parameters():
        if value.requires_grad:
            params[name] = value.detach().cpu()
    return params


def constants_of(module: nn.Module, *, like: Tensor) -> Params:
    """Buffers and frozen parameters, on the device of a tensor; real numbers in its dtype."""
    sampled = parameters_of(module).keys()
    constants = {}
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if name not in sampled:
            dtype = like.dtype if value.is_floating_point() else value.dtype
            constants[name] = value.detach().to(like.device, dtype)
    return constants


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's global generator of the processor begins at a seed, and is put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def bind(
    genotype: Genotype | None, modules: Modules | None, facts: ModuleFacts | None, where: str
) -> ModuleFamily | None:
    """The teacher's family where it is a module; None where it is any other.

    Args:
        genotype: the teacher's.
        modules: what builds modules, by name; None where nothing does.
        facts: what an earlier run found of the teacher's.
        where: file, for messages.

    Raises:
        ConfigError: there are modules for a teacher that is none, or none of its name.
    """
    if genotype is None or genotype.family != FAMILY:
        if modules or facts:
            raise ConfigError(
                f"{where}: teacher.family: found a module for a teacher that is none, expected "
                "'module'; give no module, or set it to 'module'"
            )
        return None

    name = genotype["name"]
    for given, source in (modules or {}).items():
        if given != name:
            raise ConfigError(
                f"{where}: modules: found '{given}'{nearest(given, [name])}, which is what "
                "teacher.genotype.name says"
            )
        if not callable(source) and not isinstance(source, ExportedProgram):
            raise ConfigError(
                f"{where}: modules: found {type(source).__name__} for '{name}', expected a "
                "function that builds a torch module; give one"
            )
    source_of_it = (modules or {}).get(name)
    return ModuleFamily(name, source_of_it, facts, f"{where}: teacher.family")


FAMILIES.register(FAMILY)(ModuleFamily())
