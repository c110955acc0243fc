"""What is seen of a user's module from outside, before anything is sampled.

It is asked in float64 at a few fixed inputs, with fixed parameters that are drawn by their names.
The digest of what it answers, rounded so that all processors agree, stands for its forward pass in
the key of a stream: with other code the digest is another one. Both are drawn with ``torch.rand``,
which gives the same bits everywhere.

What is refused: a likelihood has to be a product over examples, so that a module with batch norm,
or one whose answer depends on the other inputs of its batch, has none; and a posterior sample has
to be one function, so that a module which draws in its forward pass is none.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from gped_nas import rng
from gped_nas.config import Config
from gped_nas.errors import ConfigError, calling
from gped_nas.io import canonical_json, sha256_text
from gped_nas.models.base import Params, Shapes, shapes_of
from gped_nas.models.module_costs import macs_by_module

_NUM = 4
"""Inputs of a batch that the module is asked at."""
_DIGITS = {torch.float64: 5, torch.float32: 3}
"""Decimal digits of an answer that all processors agree on."""
_REMEDY = "replace it, for example with torch.nn.GroupNorm"


class ModuleFacts(Config):
    """What is known of a module without building it; a run writes it into the space it keeps."""

    input_shape: Annotated[tuple[int, ...], Field(strict=False)]
    num_outputs: int
    parameters: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        description="name and shape of each in its order: 'fc.weight 10x512'"
    )
    answers: str = Field(description="digest of what it answers at fixed inputs")
    macs: dict[str, int] = Field(description="multiply-adds of each submodule")
    is_counted: bool = Field(description="whether these are all of its multiply-adds")

    @property
    def shapes(self) -> Shapes:
        """Parameter shapes by name."""
        return parse_parameters(self.parameters)


def parse_parameters(texts: object) -> Shapes:
    """Shapes by name, from texts such as ``fc.weight 10x512``.

    Raises:
        ValueError, TypeError, AttributeError: they are not such texts.
    """
    shapes: Shapes = {}
    for text in texts:  # type: ignore[attr-defined]
        name, _, sizes = text.rpartition(" ")
        shapes[name] = tuple(int(size) for size in sizes.split("x")) if sizes != "number" else ()
    return shapes


def _as_texts(shapes: Shapes) -> tuple[str, ...]:
    return tuple(
        f"{name} {'x'.join(map(str, shape)) or 'number'}" for name, shape in shapes.items()
    )


@torch.random.fork_rng(devices=[])
def probe(
    module: nn.Module, input_shape: tuple[int, ...], num_outputs: int, where: str
) -> ModuleFacts:
    """Look at a module.

    Args:
        module: in evaluation mode.
        input_shape: of one input.
        num_outputs: raw outputs that it must have.
        where: what it is called in messages.

    Raises:
        ConfigError: it has batch norms, no parameters or such as cannot be sampled, answers with
            anything but raw outputs, or each answer is no function of its input alone.
        RegistryError: its own code raised.
    """
    _refuse_batch_norms(module, where)
    params = {name: p for name, p in module.named_parameters() if p.requires_grad}
    shapes = _checked_shapes(params, where)

    inputs = _draw(_NUM + 1, *input_shape, name="inputs") * 3.4 - 1.7
    asked = _Asked.of(module, {name: _drawn_by_name(name, s) for name, s in shapes.items()}, inputs)
    first = asked.answer(inputs[:_NUM], where)
    _check_outputs(first, tuple(inputs[:_NUM].shape), num_outputs, where)
    _check_is_function(asked, first, inputs, where)

    macs = macs_by_module(module, inputs[:1].float())
    return ModuleFacts(
        input_shape=input_shape,
        num_outputs=num_outputs,
        parameters=_as_texts(shapes),
        answers=_digest(first, _DIGITS[asked.dtype]),
        macs=macs or {},
        is_counted=macs is not None,
    )


def _refuse_batch_norms(module: nn.Module, where: str) -> None:
    names = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm)]
    if isinstance(module, torch.fx.GraphModule):
        nodes = module.graph.nodes
        names += [node.name for node in nodes if "batch_norm" in str(node.target)]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ConfigError(
            f"{where}: found batch norm ({names[0] or 'itself'}{more}), expected none: with it an "
            "answer depends on the other examples of its batch, so that the likelihood is not a "
            f"product over examples, which every posterior here is made of; {_REMEDY}, or bring "
            "networks that are trained by gped_nas.load_ensemble"
        )


def _checked_shapes(params: Mapping[str, Tensor], where: str) -> Shapes:
    if not params:
        raise ConfigError(
            f"{where}: found no parameter that requires a gradient, expected some to sample"
        )
    for name, value in params.items():
        if isinstance(value, nn.UninitializedParameter):
            raise ConfigError(
                f"{where}: found the parameter '{name}' without a size, expected one; name the "
                "sizes of lazy layers"
            )
        if not value.is_floating_point():
            raise ConfigError(
                f"{where}: found the parameter '{name}' of {value.dtype}, expected real numbers"
            )
    return shapes_of(params)


def _draw(*shape: int, name: str) -> Tensor:
    """Numbers between 0 and 1, float64, the same for ever."""
    generator = rng.generator(0, "module probe", name)
    return torch.rand(shape, dtype=torch.float64, generator=generator)


def _drawn_by_name(name: str, shape: tuple[int, ...]) -> Tensor:
    """A parameter that keeps the size of what goes through: weights by fan-in, others around 1."""
    numbers = _draw(*shape, name=f"parameter {name}")
    if len(shape) < 2:
        return numbers + 0.5
    return (2 * numbers - 1) * math.sqrt(6 / math.prod(shape[1:]))


class _Asked:
    """A module with the parameters that it is asked with, in the precision that it works in."""

    def __init__(self, module: nn.Module, params: Params, dtype: torch.dtype) -> None:
        self.module, self.dtype = module, dtype
        self._everything = {}
        for name, value in (*module.named_buffers(), *module.named_parameters()):
            is_real = value.is_floating_point()
            self._everything[name] = value.detach().cpu().to(dtype if is_real else value.dtype)
        for name, value in params.items():
            self._everything[name] = value.to(dtype)

    @classmethod
    def of(cls, module: nn.Module, params: Params, inputs: Tensor) -> "_Asked":
        """In float64; in float32 where the module takes nothing else."""
        asked = cls(module, params, torch.float64)
        try:
            asked._outputs(inputs[:_NUM])
        except Exception:  # a stranger's code, which may refuse in any way
            return cls(module, params, torch.float32)
        return asked

    def answer(self, inputs: Tensor, where: str) -> Tensor:
        """What it says, float64.

        Raises:
            ConfigError: it is no tensor.
            RegistryError: it raised.
        """
        with calling(f"{where}, at inputs of shape {tuple(inputs.shape)}", "mend its forward pass"):
            outputs = self._outputs(inputs)
        if not isinstance(outputs, Tensor):
            size = f" of {len(outputs)}" if isinstance(outputs, tuple | list | dict) else ""
            raise ConfigError(
                f"{where}: found an answer of type {type(outputs).__name__}{size}, expected a "
                "tensor of raw outputs; return them alone, or wrap the module in one that does"
            )
        return outputs.double()

    def _outputs(self, inputs: Tensor) -> object:
        with torch.no_grad():
            x = inputs.to(self.dtype)
            outputs: object = functional_call(self.module, self._everything, (x,))
        return outputs


def _check_outputs(outputs: Tensor, shape: tuple[int, ...], num_outputs: int, where: str) -> None:
    """Refuse what are no raw outputs for every class.

    Raises:
        ConfigError: another shape, numbers that are not finite, or probabilities.
    """
    expected = (shape[0], num_outputs)
    if tuple(outputs.shape) != expected:
        raise ConfigError(
            f"{where}: found outputs of shape {tuple(outputs.shape)} at inputs of shape {shape}, "
            f"expected {expected}: one raw output a class, or what the likelihood of real labels "
            f"reads; build it with {num_outputs} outputs"
        )
    if not bool(outputs.isfinite().all()):
        raise ConfigError(
            f"{where}: found outputs that are not finite at inputs between -1.7 and 1.7, expected "
            "finite ones; mend its forward pass"
        )

    sums = outputs.sum(1)
    is_probability = bool((outputs >= 0).all()) and bool(((sums - 1).abs() < 1e-4).all())
    if num_outputs > 1 and is_probability:
        raise ConfigError(
            f"{where}: found probabilities, expected raw outputs (logits): the likelihood takes "
            "their softmax itself; leave the softmax at its end out"
        )


def _check_is_function(asked: _Asked, first: Tensor, inputs: Tensor, where: str) -> None:
    """Refuse answers that are no function of their inputs one by one.

    Raises:
        ConfigError: they differ from call to call, or with the rest of the batch.
    """
    slack = 10.0 ** -_DIGITS[asked.dtype] * float(first.abs().max().clamp_min(1e-12))
    again = asked.answer(inputs[:_NUM], where)
    if float((first - again).abs().max()) > slack:
        raise ConfigError(
            f"{where}: asked twice it gave two answers, expected one: it draws in its forward "
            "pass; turn that off in evaluation mode"
        )

    elsewhere = asked.answer(torch.cat([inputs[:1], inputs[2:]]), where)
    if float((first[0] - elsewhere[0]).abs().max()) > slack:
        raise ConfigError(
            f"{where}: found an answer that depends on the other inputs of its batch, expected one "
            "of its own input alone: else the likelihood is not a product over examples; " + _REMEDY
        )


def _digest(outputs: Tensor, digits: int) -> str:
    """SHA-256 of outputs, each rounded to so many digits of the largest."""
    largest = float(outputs.abs().max()) or 1.0
    rounded = (outputs / largest * 10**digits).round().long()
    return sha256_text(canonical_json([f"{largest:.{digits - 1}e}", rounded.tolist()]))
