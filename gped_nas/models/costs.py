"""What a network costs: multiply-adds, FLOPs, parameters, bytes on disk.

``macs`` counts one a multiply-add (fvcore's convention), at batch 1, from input to raw head
outputs; biases, activations, norms and pooling are free. ``flops = 2 * macs``, which is also what
torch's own counter says. Costs are computed analytically; ``count_macs`` counts the same with
fvcore on the real network.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod

import torch
from torch import Tensor, nn

from gped_nas.errors import ConfigError, GpedError
from gped_nas.models.base import FAMILIES, Family, Genotype, Group, Params, Shapes, num_params
from gped_nas.models.dense import dense_chain, reads_rows
from gped_nas.models.pruning import PRUNE_TO, Budget
from gped_nas.models.storage import storage_bytes

# What costs count by convention, and what they leave out: activations, the norms' arithmetic,
# pooling, moving numbers about. Any other operator is an error, whether fvcore can count it or not.
COUNTED_OPERATORS = frozenset({"conv", "linear", "matmul", "addmm", "mm", "bmm", "einsum"})
_ACTIVATIONS = ("relu", "clamp_min", "tanh", "sigmoid", "gelu", "silu")
_OF_NORMS = ("mean", "add", "mul", "addcmul", "rsqrt")
_MOVES = ("clone", "flatten", "reshape", "view", "permute")
_FREE_OPERATORS = frozenset(
    f"aten::{name}" for name in (*_ACTIVATIONS, *_OF_NORMS, "max_pool2d", *_MOVES)
)

_ALLOCATED = 2**22
"""Numbers of a network up to which it is allocated to be traced: 16 MiB."""


@dataclass(frozen=True)
class Cost:
    """Costs of one network.

    Attributes:
        macs: multiply-adds of one forward pass of one example.
        flops: ``2 * macs``.
        params: how many numbers its parameters hold.
        storage_bytes: size of its weights file.
    """

    macs: int
    flops: int
    params: int
    storage_bytes: int


def cost_of(family: str, shapes: Shapes, input_shape: tuple[int, ...], storage_dtype: str) -> Cost:
    """The exact cost of a network with these parameter shapes."""
    macs = sum(FAMILIES[family].macs(shapes, input_shape).values())
    return Cost(macs, 2 * macs, num_params(shapes), storage_bytes(shapes, storage_dtype))


def genotype_cost(genotype: Genotype, input_shape: tuple[int, ...], num_outputs: int) -> Cost:
    """The cost of a genotype before pruning: an upper bound with a group penalty, else exact."""
    shapes = genotype.shapes(input_shape, num_outputs)
    return cost_of(genotype.family, shapes, input_shape, genotype["storage_dtype"])


def smallest_cost(genotype: Genotype, input_shape: tuple[int, ...], num_outputs: int) -> Cost:
    """The cost of the smallest network that pruning could leave of a genotype: one unit a group.

    Where nothing is pruned this is ``genotype_cost``; exempt layers keep all their units.
    """
    shapes = genotype.shapes(input_shape, num_outputs)
    if genotype.is_pruned and not _is_within_budget(genotype, shapes, input_shape):
        groups = genotype.prunable(shapes)
        shapes = with_units(shapes, groups, [1] * len(groups))
    return cost_of(genotype.family, shapes, input_shape, genotype["storage_dtype"])


def with_units(shapes: Shapes, groups: Sequence[Group], counts: Sequence[int]) -> Shapes:
    """The shapes of a network with so many units in each group.

    Args:
        shapes: of the whole network.
        groups: some of its groups.
        counts: units of each of them.
    """
    left = dict(shapes)
    for group, count in zip(groups, counts, strict=True):
        num_units = group.num_units(shapes)
        for name in group.readers:
            outputs, inputs, *window = left[name]
            left[name] = (outputs, inputs // num_units * count, *window)
        for name in group.rows:
            left[name] = (count, *left[name][1:])
    return left


def budgeted_cost(budget: Budget, family: str, shapes: Shapes, input_shape: tuple[int, ...]) -> int:
    """What a network of these shapes has of the cost that a budget is of."""
    if budget.dtype is not None:
        return storage_bytes(shapes, budget.dtype)
    if budget.cost == "params":
        return num_params(shapes)
    macs = sum(FAMILIES[family].macs(shapes, input_shape).values())
    return macs if budget.cost == "macs" else 2 * macs


def _is_within_budget(genotype: Genotype, shapes: Shapes, input_shape: tuple[int, ...]) -> bool:
    """Whether the whole network meets its genotype's budget, so that nothing is pruned."""
    budget = genotype.budget
    if budget is None:
        return False
    return budgeted_cost(budget, genotype.family, shapes, input_shape) <= budget.most


def known_cost(
    genotype: Genotype, input_shape: tuple[int, ...], num_outputs: int
) -> dict[str, int]:
    """The costs of a student that are known before it is trained, by name.

    Of a genotype that is not pruned, or whose budget the whole network meets, they are all, and
    exact. Of another one with a budget it is the budget: its network ends within 2 % below it
    where its units are small enough. With a group penalty alone none is known.

    Args:
        genotype: of the student, with how it is stored.
        input_shape: shape of one input.
        num_outputs: raw outputs.
    """
    budget = genotype.budget
    if not genotype.is_pruned:
        return asdict(genotype_cost(genotype, input_shape, num_outputs))
    if budget is None:
        return {}
    if _is_within_budget(genotype, genotype.shapes(input_shape, num_outputs), input_shape):
        return asdict(genotype_cost(genotype, input_shape, num_outputs))

    if budget.cost == "macs":
        return {"macs": budget.most, "flops": 2 * budget.most}
    if budget.cost == "flops":
        return {"macs": budget.most // 2, "flops": budget.most}
    is_of_another_file = budget.dtype not in (None, genotype["storage_dtype"])
    return {} if is_of_another_file else {budget.cost: budget.most}


def check_budget(
    genotype: Genotype, input_shape: tuple[int, ...], num_outputs: int, where: str
) -> None:
    """Refuse a budget that no network of a genotype meets.

    Args:
        genotype, input_shape, num_outputs: see ``known_cost``.
        where: file and key of the genotype, for messages.

    Raises:
        ConfigError: even with one unit a group it costs more.
    """
    budget = genotype.budget
    if budget is None:
        return

    shapes = genotype.shapes(input_shape, num_outputs)
    groups = genotype.prunable(shapes)
    smallest = with_units(shapes, groups, [1] * len(groups))
    least = budgeted_cost(budget, genotype.family, smallest, input_shape)
    if least > budget.most:
        raise ConfigError(
            f"{where}.{PRUNE_TO}: found {budget}, expected at least {least}, which the smallest "
            f"network of {genotype.unpruned} costs; raise the budget, or draw smaller networks"
        )


class _Network(nn.Module):
    """A family's forward with its parameters as a module, for counters that trace modules."""

    def __init__(self, family: str, params: Params) -> None:
        super().__init__()
        self._forward = FAMILIES[family].forward
        self._names = list(params)
        self.values = nn.ParameterList(
            nn.Parameter(p, requires_grad=False) for p in params.values()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(dict(zip(self._names, self.values, strict=True)), x)


def count_macs(family: str, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Multiply-adds by operator as fvcore counts them on the real network.

    A large network without convolutions is not allocated but traced on ``meta``; convolutions
    cannot be traced there.

    Raises:
        GpedError: the network holds an operator that is neither counted nor known to be free.
    """
    with warnings.catch_warnings():
        # fvcore decorates its losses, none of which is used here, with torch.jit.script, which
        # torch has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

    has_convolution = any(len(shape) > 2 for shape in shapes.values())
    is_small = num_params(shapes) <= _ALLOCATED
    # products on ``meta`` import torch's compiler, which takes a second
    device = "cpu" if has_convolution or is_small else "meta"
    params = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()}
    x = torch.zeros((1, *input_shape), device=device)

    analysis = FlopCountAnalysis(_Network(family, params).eval(), x)
    analysis.unsupported_ops_warnings(False)
    analysis.uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        counts = {name: int(count) for name, count in analysis.by_operator().items()}

    free = _FREE_OPERATORS | FAMILIES[family].free_operators
    unknown = set(analysis.unsupported_ops()) - free | set(counts) - COUNTED_OPERATORS
    if unknown:
        raise GpedError(
            f"family '{family}': no rule counts {', '.join(sorted(unknown))}; name those that cost "
            "nothing in its free_operators"
        )
    return counts


_OPERATOR_OF_CHAINS: dict[tuple[Family, int], str] = {}
"""By family and number of layers, the operator that dense layers were found to be."""


def macs_by_operator(family: str, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
    """``count_macs``, which traces the first dense chain of each length alone.

    What a chain of dense layers computes does not depend on its widths: of every further one each
    layer is the same operator, with a multiply-add a weight.

    Raises as ``count_macs``.
    """
    model = FAMILIES[family]
    chain = dense_chain(model, shapes)
    if not reads_rows(chain, shapes, input_shape):
        return count_macs(family, shapes, input_shape)

    num_macs = sum(prod(shapes[weight]) for weight, _ in chain)
    key = (model, len(chain))
    if key not in _OPERATOR_OF_CHAINS:
        counts = count_macs(family, shapes, input_shape)
        if list(counts.values()) != [num_macs]:
            return counts
        (_OPERATOR_OF_CHAINS[key],) = counts
    return {_OPERATOR_OF_CHAINS[key]: num_macs}


def largest_product(
    family: str | Family, shapes: Shapes, input_shape: tuple[int, ...], batch_size: int
) -> int:
    """Multiply-adds of a batch's largest convolution or dense product.

    They decide whether threads help.

    Args:
        family: the family, or its name.
        shapes: of the network's parameters.
        input_shape: shape of one input.
        batch_size: examples a batch.
    """
    blueprint = FAMILIES[family] if isinstance(family, str) else family
    return batch_size * max(blueprint.macs(shapes, input_shape).values())
