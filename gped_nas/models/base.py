"""Genotypes and the families that build them.

A family is a blueprint of pure functions over named parameters; a genotype is a family with frozen
values. Families keep no parameters of their own, so teachers, students, populations and pruned
networks share one forward.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.activations import SECOND_MOMENTS, activation_in
from gped_nas.models.elementary import Elementary
from gped_nas.models.labels import genotype_text
from gped_nas.models.pruning import (
    PRUNING_VALUES,
    STORAGE_DTYPES,
    Budget,
    budget_in,
    exempt_words,
    is_named,
    take_pruning,
)
from gped_nas.registry import Registry

Params = dict[str, Tensor]
"""Parameters by name, in the order of the family's ``shapes``."""
Shapes = dict[str, tuple[int, ...]]
Value = int | float | str | tuple[int, ...]

COMMON_VALUES = (*PRUNING_VALUES, "storage_dtype", "label_weight")


@dataclass(frozen=True)
class Group:
    """Parameters that live and die together: all of the units of one layer, or of coupled layers.

    Every parameter of ``weights`` and ``followers`` has one row (axis 0) a unit, every reader one
    column or block of columns (axis 1) a unit. A unit is dead when its rows of ``weights`` are
    exactly zero; what it then sends its readers must be what its activation makes of the bias of
    ``constant``, or zero where there is none.

    Attributes:
        layer: name of the layer whose output units these are; of the first one where layers are
            coupled.
        weights: penalized together: a unit's norm is that of its rows of all of them.
        readers: what reads the units; a unit's columns go with it.
        followers: removed with a unit without being penalized: biases, and filters whose scale a
            norm takes out.
        constant: the units' bias, and the bias of the one reader that takes up the constants of
            removed units.
    """

    layer: str
    weights: tuple[str, ...]
    readers: tuple[str, ...]
    followers: tuple[str, ...] = ()
    constant: tuple[str, str] | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """Every parameter with one row a unit."""
        return self.weights + self.followers

    def num_units(self, shapes: Shapes) -> int:
        """How many units there are in a network of these shapes."""
        return shapes[self.weights[0]][0]


class Form(ABC):
    """Another way to write a network, which students are trained in.

    They enter it at the start of each phase of training and leave it at the end: what is looked at,
    pruned, measured, stored and exported is the plain network. ``forms.py`` has some.

    ``constants`` are tensors of a student beside its parameters that no gradient changes.
    """

    least_batch = 1  # inputs that a batch must have

    @abstractmethod
    def begin(self, params: Params) -> tuple[Params, Params]:
        """Trained parameters and constants of a student with fresh plain parameters."""

    @abstractmethod
    def enter(self, params: Params, batches: Sequence[Tensor]) -> tuple[Params, Params]:
        """Trained parameters and constants of the function that plain parameters are.

        Args:
            params: plain ones.
            batches: inputs, as many in each.
        """

    @abstractmethod
    def forward(self, params: Params, constants: Params, x: Tensor) -> Tensor:
        """Raw outputs (B, U) in training, for normalized inputs (B, *input_shape)."""

    @abstractmethod
    def settle(self, params: Params, constants: Params, batches: Sequence[Tensor]) -> Params:
        """The constants that ``leave`` needs for these trained parameters.

        Args:
            params: trained ones.
            constants: those that they were trained with.
            batches: inputs, as many in each as in a batch of training.
        """

    @abstractmethod
    def leave(self, params: Params, constants: Params) -> Params:
        """Plain parameters of the function that trained ones are."""

    def penalty(self, group: Group, shapes: Shapes) -> tuple[tuple[str, ...], float]:
        """What a group's penalty is on in these trained shapes, and what it is multiplied by.

        The penalty of n numbers is ``sqrt(n)`` times their length. Gains stand for many more.
        """
        names = []
        for name in group.weights:
            gain = gain_of(name)
            names.append(gain if gain in shapes else name)

        num_plain = sum(math.prod(shapes[name][1:]) for name in group.weights)
        num_trained = sum(math.prod(shapes[name][1:]) for name in names)
        return tuple(names), math.sqrt(num_plain / num_trained)


class Family(ABC):
    """A network blueprint that can be built at many sizes.

    Inherit it: what has a default below is then right for chains of layers whose last layer is
    dense. Rules that hold for every family, because code elsewhere knows parameters by name alone:

    * The parameters of a layer are ``<layer>.weight`` and ``<layer>.bias``: of shapes (outputs,
      inputs, ...) and (outputs,). Priors that scale with the fan-in find a bias's layer by it; a
      parameter of one axis without a weight beside it counts as having one input.
    * No name ends in ``.scale``, which is what the scale of int8 weights is called on disk.
    * Parameters alone say what the network is: ``forward``, ``groups``, ``macs`` and ``describe``
      see shapes after pruning, and no genotype.
    * Units that a ``Group`` with ``constant`` describes are ReLUs, or what a word in the names of
      their parameters says (``activations.py``): a dead unit sends what that makes of its bias.

    ``gped_nas.testing.check_family`` checks all of it.
    """

    @property
    def counts(self) -> Mapping[str, str]:
        """The genotype values with an entry a layer, and the value that counts each one's entries.

        None by default. ``{"width": "depth"}``: ``width`` has ``depth`` entries.
        """
        return {}

    @property
    def monotone(self) -> frozenset[str]:
        """The genotype values with which every cost grows, the others fixed; none by default."""
        return frozenset()

    @property
    def defaults(self) -> Mapping[str, Value]:
        """The values that identities leave out where they are this, in every entry of a list.

        None by default. They are for values that a family gets later: genotypes of before it have
        the identity that they had.
        """
        return {}

    @property
    def of_training(self) -> frozenset[str]:
        """The values that say how a student is trained; a teacher has none of them."""
        return frozenset()

    @property
    def free_operators(self) -> frozenset[str]:
        """Operators of the forward pass that cost nothing by convention, as fvcore calls them.

        Those of ``costs`` (ReLU and other activations, norms, pooling, reshaping) need not be
        repeated: ``frozenset({"aten::softplus"})``.
        """
        return frozenset()

    @property
    def examples(self) -> Sequence[Mapping[str, Any]]:
        """Small genotypes, as values, on which the contract suite tries the family."""
        return ()

    @property
    def example_inputs(self) -> Sequence[tuple[int, ...]]:
        """Shapes of small inputs, each of which all ``examples`` can read."""
        return ((4,),)

    @abstractmethod
    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """Architecture values checked, completed and with inactive ones dropped.

        Raises:
            ConfigError: a value is unknown, missing or impossible; the message starts with its
                name.
        """

    @abstractmethod
    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """Parameter shapes of the network, from input to raw outputs.

        Raises:
            ConfigError: no such network can read inputs of this shape; the message starts with the
                value to change.
        """

    @abstractmethod
    def forward(self, params: Params, x: Tensor) -> Tensor:
        """Raw outputs (B, num_outputs) for normalized inputs (B, *input_shape).

        Widths may be any, as pruning leaves them.

        Raises:
            KeyError: a parameter is missing.
        """

    @abstractmethod
    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """Multiply-adds of one example by the name of the weight that does them, analytically."""

    def initialize(self, shapes: Shapes, *, generator: torch.Generator) -> Params:
        """Fresh parameters in the order of ``shapes``; by default those of ``initialize``."""
        return initialize(shapes, generator=generator)

    def has_own_start(self, values: Mapping[str, Any]) -> bool:
        """Whether chains begin with ``initialize``, as by default; else with a draw of the prior.

        Args:
            values: of the teacher's genotype.
        """
        return True

    def head(self, shapes: Shapes) -> tuple[str, str] | None:
        """The names of weight and bias of the dense layer that gives the raw outputs, if any.

        Their shapes are (outputs, inputs) and (outputs,). By default they are the last two
        parameters, if these are such a layer.
        """
        if len(shapes) < 2:
            return None
        weight, bias = list(shapes)[-2:]
        is_dense = len(shapes[weight]) == 2 and shapes[bias] == shapes[weight][:1]
        return (weight, bias) if is_dense else None

    def layers(self, params: Params) -> list[Elementary] | None:
        """The network as elementary layers, from normalized inputs to raw outputs.

        They are what sound bounds are carried through (``evaluate/certify``). None, the default,
        is a family that has no bounds.

        Args:
            params: float64 ones, as pruning left them.
        """
        return None

    @property
    def why_no_layers(self) -> str:
        """Why ``layers`` gives none, for people; it follows the family's name and a colon."""
        return "its class does not say what its layers are"

    def form(self, values: Mapping[str, Any]) -> Form | None:
        """The form that students of a genotype are trained in; None, the default, is as stored."""
        return None

    def groups(self, shapes: Shapes) -> list[Group]:
        """The prunable groups, from input to output; none by default."""
        return []

    def describe(self, shapes: Shapes) -> list[dict[str, Any]]:
        """One row a layer for people: ``{"layer", "kind", "inputs", "outputs", "params"}``.

        Inputs and outputs of a convolution or a norm are channels. By default the parameters whose
        names differ in the last word alone are a layer.
        """
        layers: dict[str, list[tuple[int, ...]]] = {}
        for name, shape in shapes.items():
            layer = name.rpartition(".")[0] or name
            layers.setdefault(layer, []).append(shape)

        kinds = {0: "vector", 1: "linear"}
        rows = []
        for layer, parts in layers.items():
            outputs, *inputs = max(parts, key=len)
            rows.append(
                {
                    "layer": layer,
                    "kind": kinds.get(len(inputs), "conv"),
                    "inputs": inputs[0] if inputs else outputs,
                    "outputs": outputs,
                    "params": sum(math.prod(shape) for shape in parts),
                }
            )
        return rows


FAMILIES: Registry[Family] = Registry("family", "gped_nas.models", Family)


@dataclass(frozen=True, init=False)
class Genotype:
    """A family and the frozen values a study drew: architecture, training and storage.

    Values that are inactive (the width of a layer that is not there) are dropped and defaults
    filled in, so two genotypes are equal exactly when they describe the same training. A genotype
    without ``label_weight`` is trained with the recipe's. How it is pruned: see ``pruning.py``.
    """

    family: str
    values: tuple[tuple[str, Value], ...]

    def __init__(self, family: str, /, **values: object) -> None:
        pruning = take_pruning(values)
        dtype = values.pop("storage_dtype", "float32")
        label_weight = values.pop("label_weight", None)
        if dtype not in STORAGE_DTYPES:
            raise ConfigError(
                f"storage_dtype: found {dtype!r}, expected one of {', '.join(STORAGE_DTYPES)}"
            )

        full: dict[str, Value] = FAMILIES[family].canonical(values)
        full |= {**pruning, "storage_dtype": str(dtype)}
        if label_weight is not None:
            full["label_weight"] = _check_label_weight(label_weight)

        # the class is frozen, so its own fields are set past it
        object.__setattr__(self, "family", family)
        object.__setattr__(self, "values", tuple(sorted(full.items())))

    def __getitem__(self, name: str) -> Any:
        return dict(self.values)[name]

    def architecture(self) -> dict[str, Value]:
        """The values of its family, without ``Family.defaults``: neither training nor storage."""
        values = self._identity()
        return {name: value for name, value in values.items() if name not in COMMON_VALUES}

    def _identity(self) -> dict[str, Value]:
        """All values but those that ``Family.defaults`` leaves out."""
        defaults = FAMILIES[self.family].defaults
        values = {}
        for name, value in self.values:
            entries = value if isinstance(value, tuple) else (value,)
            is_default = name in defaults and all(entry == defaults[name] for entry in entries)
            if not is_default:
                values[name] = value
        return values

    def replace(self, **values: object) -> "Genotype":
        """A copy with some values changed."""
        return Genotype(self.family, **{**dict(self.values), **values})

    @property
    def budget(self) -> Budget | None:
        """What it is pruned to; None where a penalty decides."""
        return budget_in(dict(self.values))

    @property
    def is_pruned(self) -> bool:
        """Whether training removes units of it."""
        return self["group_penalty"] > 0 or self.budget is not None

    @property
    def unpruned(self) -> "Genotype":
        """The same network, of which nothing is removed."""
        values = {name: value for name, value in self.values if name not in PRUNING_VALUES}
        return Genotype(self.family, **values)

    def prunable(self, shapes: Shapes) -> list[Group]:
        """The groups that pruning may remove units of: none of an exempt layer.

        Args:
            shapes: of its parameters, whole or pruned.
        """
        groups = FAMILIES[self.family].groups(shapes)
        exempt = set()
        for word in exempt_words(dict(self.values)):
            named = [group for group in groups if is_named(group.layer, word)]
            ends = {"first": groups[:1], "last": groups[-1:]}
            exempt |= {group.layer for group in ends.get(word, named)}
        return [group for group in groups if group.layer not in exempt]

    def shapes(self, input_shape: tuple[int, ...], num_outputs: int) -> Shapes:
        """Parameter shapes of the unpruned network."""
        return FAMILIES[self.family].shapes(dict(self.values), input_shape, num_outputs)

    @property
    def form(self) -> Form | None:
        """The form that its students are trained in; None where that is how they are stored."""
        return FAMILIES[self.family].form(dict(self.values))

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``{"family": ..., value name: value, ...}``."""
        data: dict[str, Any] = {"family": self.family}
        for name, value in self._identity().items():
            data[name] = list(value) if isinstance(value, tuple) else value
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Genotype":
        """The genotype that ``to_json`` wrote."""
        values = dict(data)
        return Genotype(values.pop("family"), **values)

    def __str__(self) -> str:
        return genotype_text({"family": self.family, **self._identity()})


def _check_label_weight(weight: Any) -> float:
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight <= 1:
        raise ConfigError(f"label_weight: found {weight!r}, expected a number from 0 to 1")
    return float(weight)


def initialize(shapes: Shapes, *, generator: torch.Generator) -> Params:
    """Fresh parameters: biases zero, gains of norms (named ``gain``) one, weights normal.

    Their variance is 1 / (fan-in * E[f(z)^2]) for activation f and a standard normal z, so that
    sums of units keep their variance from layer to layer; for ReLUs it is 2 / fan-in.

    Source: He et al. 2015, arXiv:1502.01852, equations 6 to 10.
    """
    gain = 1 / SECOND_MOMENTS[activation_in(shapes)]
    params: Params = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            std = math.sqrt(gain / math.prod(shape[1:]))
            params[name] = torch.randn(shape, generator=generator) * std
        else:
            params[name] = torch.full(shape, 1.0 if name.endswith(".gain") else 0.0)
    return params


def gain_of(weight: str) -> str:
    """The name of the gain that belongs to a weight in a form that has gains."""
    return f"{weight.removesuffix('.weight')}.gain"


def shapes_of(params: Mapping[str, Tensor]) -> Shapes:
    """The shapes of parameters, by name."""
    return {name: tuple(value.shape) for name, value in params.items()}


def num_params(shapes: Shapes) -> int:
    """How many numbers the parameters hold."""
    return sum(math.prod(shape) for shape in shapes.values())
