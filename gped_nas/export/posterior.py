"""An exported posterior: its code as one safetensors file, and a loader that needs torch alone.

``posterior.safetensors`` holds the code's tensors. Its metadata ``code`` is JSON:

* ``codec``, ``settings``: what decodes it.
* ``shapes``: name and shape of each parameter, in the order in which they lie flat.
* ``graph``: a network from raw inputs to what it predicts, as steps ``[name, step, args,
  options]`` in their order. A step is an operator of torch's ``aten``; ``{"of": name}`` stands for
  what another step gave, for ``inputs``, for a parameter ``param/NAME`` or for a tensor of the
  file. The last step is the answer: log-probabilities (N, C), or mean and variance (N, 2) of a
  label in its own unit.
* ``task``, ``input_shape``, ``class_names``, ``of`` and ``version``.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node

from gped_nas.errors import ConfigError
from gped_nas.export.loading import posterior as loader
from gped_nas.models.base import Params, Shapes
from gped_nas.posterior.codecs.code import Code

POSTERIOR_FILE, LOADER_FILE = "posterior.safetensors", "load_posterior.py"
_CONSTANT = "net_"
"""Of the names of tensors of the file that belong to the network."""
_RESHAPED = dict.fromkeys(("view.default", "_unsafe_view.default"), "reshape.default")
"""Steps that ask how numbers lie in memory, which copies that are left out would have settled."""
_DECODER = "from gped_nas.export.loading.subset import decode\n"
_HEADER = re.compile(r'\A"""[\s\S]*?"""\n|^(?:import|from) .*\n', re.MULTILINE)
"""What a decoder's text has before its functions; the loader has it already."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as steps.

    Attributes:
        steps: see the module.
        tensors: those that it reads beside parameters and inputs.
    """

    steps: list[list[Any]]
    tensors: Mapping[str, Tensor]


class _Network(nn.Module):
    """A network whose parameters are arguments."""

    def __init__(self, predict: Callable[[Params, Tensor], Tensor], names: Sequence[str]) -> None:
        super().__init__()
        self.predict, self.names = predict, names

    def forward(self, *arguments: Tensor) -> Tensor:
        """Parameters, then raw inputs, to what is predicted."""
        *params, inputs = arguments
        return self.predict(dict(zip(self.names, params, strict=True)), inputs)


def trace_network(
    predict: Callable[[Params, Tensor], Tensor], shapes: Shapes, input_shape: tuple[int, ...]
) -> Graph:
    """A network as steps that ``load_posterior.py`` can take.

    Args:
        predict: parameters and raw inputs (N, *input_shape) to what is predicted (N, G).
        shapes: of the parameters.
        input_shape: of raw inputs.

    Raises:
        ConfigError: it takes a step that the loader does not know, or torch cannot trace it.
    """
    program = _program(predict, shapes, input_shape)
    signature = program.graph_signature

    tensors: dict[str, Tensor] = {}
    names = [f"param/{name}" for name in shapes] + ["inputs"]
    by_node: dict[str, str] = dict(zip(signature.user_inputs, names, strict=True))
    for node, target in signature.inputs_to_lifted_tensor_constants.items():
        by_node[node] = f"{_CONSTANT}{len(tensors)}"
        tensors[by_node[node]] = program.constants[target].contiguous()

    steps = []
    for node in program.graph.nodes:
        if node.op != "call_function" or not node.users:
            continue
        if _is_idle(node):
            source = str(node.args[0])
            by_node[node.name] = by_node.get(source, source)
        else:
            steps.append(_step(node, by_node))
    return Graph(steps, tensors)


def _program(
    predict: Callable[[Params, Tensor], Tensor], shapes: Shapes, input_shape: tuple[int, ...]
) -> ExportedProgram:
    """A network as torch traces it, for batches of any size.

    Raises:
        ConfigError: it cannot.
    """
    arguments = [torch.zeros(shape) for shape in shapes.values()]
    arguments.append(torch.zeros((2, *input_shape)))
    batch = [None] * len(shapes) + [{0: Dim("batch")}]
    try:
        with torch.no_grad():
            program: ExportedProgram = torch.export.export(
                _Network(predict, list(shapes)),
                tuple(arguments),
                dynamic_shapes={"arguments": tuple(batch)},
                strict=False,
            )
            # so that no step changes what another one gave
            plain: ExportedProgram = program.run_decompositions({})
            return plain
    except Exception as error:  # torch raises whatever a user's module raises
        reason = str(error).strip().split("\n")[0][:200]
        raise ConfigError(
            f"--posterior: this network cannot be written as steps: {reason}; keep the stream"
        ) from None


def _is_idle(node: Node) -> bool:
    """Whether a step gives the numbers that it takes: a copy, or float32 of float32."""
    if str(node.target) == "aten.clone.default":
        return True
    if str(node.target) not in ("aten.to.dtype", "aten._to_copy.default"):
        return False
    source = node.args[0]
    assert isinstance(source, Node)
    is_plain: bool = source.meta["val"].dtype == node.meta["val"].dtype
    return is_plain


def _step(node: Node, by_node: Mapping[str, str]) -> list[Any]:
    """One step as plain data.

    Raises:
        ConfigError: the loader does not know it.
    """
    namespace, _, step = str(node.target).partition(".")
    step = _RESHAPED.get(step, step)
    if namespace != "aten" or step.partition(".")[0] not in loader.SAFE:
        raise ConfigError(
            f"--posterior: the network takes the step {node.target}, expected those of "
            f"{LOADER_FILE}: {', '.join(sorted(loader.SAFE))}"
        )

    def plain(value: Any) -> Any:
        if isinstance(value, Node):
            return {"of": by_node.get(value.name, value.name)}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ConfigError(f"--posterior: the step {node.target} of the network takes {value!r}")

    options = {key: plain(value) for key, value in node.kwargs.items()}
    return [node.name, step, plain(node.args), options]


def posterior_bytes(code: Code, graph: Graph, about: Mapping[str, Any]) -> bytes:
    """The file of a code whose networks are this graph.

    Args:
        code: what is stored.
        graph: of a network.
        about: what else the metadata say.
    """
    whole = replace(code, tensors={**code.tensors, **graph.tensors})
    return whole.to_bytes({**about, "graph": graph.steps})


def loader_text(codec: str) -> str:
    """The text of ``load_posterior.py`` for a codec.

    Raises:
        ConfigError: there is no decoder of the codec.
    """
    try:
        decoder = importlib.import_module(f"gped_nas.export.loading.{codec}")
    except ModuleNotFoundError:
        raise ConfigError(
            f"--posterior: found '{codec}', which has no loader; choose another codec"
        ) from None
    body = _HEADER.sub("", inspect.getsource(decoder)).strip()
    whole = inspect.getsource(loader)
    assert _DECODER in whole, "the line to replace"
    return whole.replace(_DECODER, "").replace("\nSAFE =", f"\n{body}\n\n\nSAFE =", 1)
