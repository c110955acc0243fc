"""What every family promises, on small genotypes, whole and pruned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.models.base import (
    COMMON_VALUES,
    FAMILIES,
    Family,
    Genotype,
    Params,
    Shapes,
    shapes_of,
)
from gped_nas.models.base import num_params as count_params
from gped_nas.models.compact import compact, dead_units
from gped_nas.models.costs import cost_of, count_macs, genotype_cost, smallest_cost
from gped_nas.models.elementary import Affine, run_layers
from gped_nas.models.pruning import STORAGE_DTYPES
from gped_nas.models.storage import decode, encode
from gped_nas.testing.promises import require, require_close, require_refusal, run_all

NUM_OUTPUTS = 3
_DEAD_SHARES = (0.0, 0.5, 1.0)
_COSTS = ("macs", "flops", "params", "storage_bytes")


@dataclass(frozen=True)
class FamilyCase:
    """A genotype and the shape of the inputs that it is tried on."""

    genotype: Genotype
    input_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.genotype} on {self.input_shape}"

    @property
    def family(self) -> Family:
        """The family itself."""
        return FAMILIES[self.genotype.family]

    @property
    def shapes(self) -> Shapes:
        """Parameter shapes of the unpruned network."""
        return self.genotype.shapes(self.input_shape, NUM_OUTPUTS)

    def inputs(self, num: int) -> Tensor:
        """Normal numbers (num, *input_shape)."""
        return torch.randn(num, *self.input_shape, generator=rng.generator(0, "contract inputs"))

    def params(self, dead_share: float) -> Params:
        """Parameters with positive biases on every unit; a share of each group's units is dead."""
        generator = rng.generator(0, "contract", str(self), str(dead_share))
        shapes = self.shapes
        params = self.family.initialize(shapes, generator=generator)
        for name, value in params.items():
            if value.dim() == 1:
                params[name] = torch.rand(value.shape, generator=generator) + 0.1

        for group in self.family.groups(shapes):
            is_dead = torch.rand(group.num_units(shapes), generator=generator) < dead_share
            for name in group.weights:
                params[name][is_dead] = 0.0
        return params


def family_cases(
    name: str,
    genotypes: Sequence[Mapping[str, Any]] = (),
    input_shapes: Sequence[tuple[int, ...]] = (),
) -> list[FamilyCase]:
    """Every genotype on every input.

    Args:
        name: of the family.
        genotypes: values of small genotypes; the family's own ``examples`` by default.
        input_shapes: shapes of inputs that all of them read; its ``example_inputs`` by default.
    """
    family = FAMILIES[name]
    genotypes = genotypes or family.examples
    require(
        len(genotypes) > 0,
        f"family '{name}': no genotypes to try it on; give its class some as 'examples', or pass "
        "them",
    )
    return [
        FamilyCase(Genotype(name, **values), tuple(shape))
        for values in genotypes
        for shape in input_shapes or family.example_inputs
    ]


def check_family(
    name: str,
    genotypes: Sequence[Mapping[str, Any]] = (),
    input_shapes: Sequence[tuple[int, ...]] = (),
) -> None:
    """Try a registered family on small genotypes; see ``family_cases`` for the arguments.

    Raises:
        AssertionError: it breaks a promise; the message says which, and where.
    """
    run_all(FAMILY_CHECKS, family_cases(name, genotypes, input_shapes))


def names_and_order_follow_the_rules(case: FamilyCase) -> None:
    """Names of parameters are what ``Family`` says, and initial values have their shapes."""
    shapes = case.shapes
    require(len(shapes) > 0, f"{case}: found no parameters, expected some")
    for name, shape in shapes.items():
        require(
            not name.endswith(".scale"),
            f"{case}: parameter '{name}': its name ends in '.scale', which is what the scale of "
            "int8 weights is called on disk; choose another name",
        )
        weight = shapes.get(f"{name.rpartition('.')[0]}.weight")
        if len(shape) == 1 and weight is not None:
            require(
                shape[0] == weight[0],
                f"{case}: parameter '{name}' of shape {shape} stands beside a weight of shape "
                f"{weight}, expected one number an output",
            )

    fresh = case.family.initialize(shapes, generator=rng.generator(0, "contract"))
    again = case.family.initialize(shapes, generator=rng.generator(0, "contract"))
    require(
        shapes_of(fresh) == shapes and list(fresh) == list(shapes),
        f"{case}: initialize gives {shapes_of(fresh)}, expected {shapes} in this order",
    )
    require(
        all(torch.equal(fresh[name], again[name]) for name in shapes),
        f"{case}: initialize draws from something else than its generator",
    )


def the_head_gives_the_raw_outputs(case: FamilyCase) -> None:
    """What is added to the head's bias is added to the outputs; its weight reads in proportion."""
    head = case.family.head(case.shapes)
    if head is None:
        return
    weight, bias = head
    params, x = case.params(0.0), case.inputs(4)
    require(
        weight in params and bias in params,
        f"{case}: head names {head}, expected two of {', '.join(params)}",
    )
    expected = (NUM_OUTPUTS,)
    require(
        tuple(params[bias].shape) == expected and tuple(params[weight].shape[:1]) == expected,
        f"{case}: head names {head}, which do not have {NUM_OUTPUTS} outputs",
    )
    outputs = case.family.forward(params, x)

    shift = torch.arange(1.0, NUM_OUTPUTS + 1)
    shifted = case.family.forward({**params, bias: params[bias] + shift}, x)
    require_close(
        shifted,
        outputs + shift,
        1e-4,
        f"{case}: head says that '{bias}' is the bias of the raw outputs; outputs with it moved",
    )
    doubled = case.family.forward({**params, weight: 2 * params[weight]}, x)
    require_close(
        doubled,
        2 * outputs - params[bias],
        1e-3 * max(1.0, float(outputs.abs().max())),
        f"{case}: head says that '{weight}' is the weight of the raw outputs; outputs with it "
        "doubled",
    )


def macs_are_those_that_are_counted(case: FamilyCase) -> None:
    """Analytic multiply-adds are fvcore's and half of torch's FLOPs, pruned or not."""
    family = case.genotype.family
    for dead_share in _DEAD_SHARES:
        params = compact(family, case.params(dead_share))
        shapes = shapes_of(params)
        macs = case.family.macs(shapes, case.input_shape)

        require(
            all(name in shapes for name in macs),
            f"{case}: macs names {sorted(set(macs) - set(shapes))}, expected names of parameters",
        )
        by_operator = {"conv": 0, "linear": 0}
        for name, num in macs.items():
            by_operator["conv" if len(shapes[name]) > 2 else "linear"] += num
        by_operator = {name: num for name, num in by_operator.items() if num}
        counted = count_macs(family, shapes, case.input_shape)
        require(
            sum(by_operator.values()) == sum(counted.values()),
            f"{case}: macs says {by_operator}, fvcore counts {counted} ({dead_share:.0%} dead)",
        )

        with FlopCounterMode(display=False) as counter:
            case.family.forward(params, torch.zeros(1, *case.input_shape))
        require(
            counter.get_total_flops() == 2 * sum(macs.values()),
            f"{case}: macs says {sum(macs.values())}, torch counts {counter.get_total_flops()} "
            "FLOPs, expected twice as many",
        )
        cost = cost_of(family, shapes, case.input_shape, "float32")
        require(
            cost.params == count_params(shapes) == sum(value.numel() for value in params.values()),
            f"{case}: its cost counts {cost.params} parameters",
        )


def outputs_do_not_depend_on_the_batch(case: FamilyCase) -> None:
    """Raw outputs (B, U) for any number of inputs, each alone as among others."""
    params, x = case.params(0.0), case.inputs(5)
    outputs = case.family.forward(params, x)
    require(
        outputs.shape == (5, NUM_OUTPUTS),
        f"{case}: forward gives {tuple(outputs.shape)} for 5 inputs, expected (5, {NUM_OUTPUTS})",
    )
    alone = torch.cat([case.family.forward(params, x[i : i + 1]) for i in range(5)])
    scale = max(1.0, float(outputs.abs().max()))
    require_close(alone, outputs, 1e-4 * scale, f"{case}: outputs of inputs alone and together")
    require(
        case.family.forward(params, x[:0]).shape == (0, NUM_OUTPUTS),
        f"{case}: forward does not take a batch without inputs",
    )


def a_missing_parameter_is_noticed(case: FamilyCase) -> None:
    """Without any one of its parameters the network does not run: damaged files are told."""
    params, x = case.params(0.0), torch.zeros(1, *case.input_shape)
    for name in params:
        rest = {other: value for other, value in params.items() if other != name}
        require_refusal(
            partial(case.family.forward, rest, x),
            (KeyError, RuntimeError),
            f"{case}: forward runs without '{name}'; look every parameter up by its name",
        )


def groups_are_rows_and_columns(case: FamilyCase) -> None:
    """A unit has one row of all that is its own, and one block of columns of each reader."""
    shapes = case.shapes
    groups = case.family.groups(shapes)
    for group in groups:
        num_units = group.num_units(shapes)
        for name in group.rows:
            require(
                shapes[name][0] == num_units,
                f"{case}: group '{group.layer}': '{name}' has {shapes[name][0]} rows, expected one "
                f"for each of {num_units} units",
            )
        for name in group.readers:
            require(
                shapes[name][1] % num_units == 0,
                f"{case}: group '{group.layer}': reader '{name}' has {shapes[name][1]} columns, "
                f"expected a multiple of {num_units} units",
            )

    rows = [name for group in groups for name in group.rows]
    readers = [name for group in groups for name in group.readers]
    require(len(set(rows)) == len(rows), f"{case}: a parameter's rows are in two groups: {rows}")
    require(len(set(readers)) == len(readers), f"{case}: a parameter reads two groups: {readers}")
    head = case.family.head(shapes)
    require(
        head is None or not set(head) & set(rows),
        f"{case}: the head {head} is in a group; outputs cannot be removed",
    )


def removing_dead_units_changes_no_output(case: FamilyCase) -> None:
    """What pruning takes away was not seen in the outputs, and less is left where units died."""
    family, x = case.family, case.inputs(16)
    for dead_share in (0.3, 0.7, 1.0):
        params = case.params(dead_share)
        pruned = compact(case.genotype.family, params)
        require(
            list(pruned) == list(params),
            f"{case}: pruned parameters are {list(pruned)}, expected {list(params)}",
        )
        before = family.forward({n: p.double() for n, p in params.items()}, x.double())
        after = family.forward(pruned, x).double()
        scale = max(1.0, float(before.abs().max()))
        require_close(
            after,
            before,
            1e-6 * scale,
            f"{case}: outputs after removing {dead_share:.0%} of the units of "
            f"{[group.layer for group in family.groups(case.shapes)]}",
        )

        shapes = shapes_of(params)
        groups = family.groups(shapes)
        is_smaller = count_params(shapes_of(pruned)) < count_params(shapes)
        removable = [
            group
            for group in groups
            if group.num_units(shapes) > 1 and bool(dead_units(params, group).any())
        ]
        require(is_smaller == bool(removable), f"{case}: dead units of {removable} are not removed")
        for group in family.groups(shapes_of(pruned)):
            dead = dead_units(pruned, group)
            require(
                len(dead) == 1 or not bool(dead.any()),
                f"{case}: dead units of '{group.layer}' are left after pruning",
            )


def costs_lie_between_the_smallest_and_the_whole(case: FamilyCase) -> None:
    """Bounds that the search relies on hold for whatever pruning leaves."""
    shape, genotype = case.input_shape, case.genotype
    whole = genotype_cost(genotype.replace(group_penalty=0.1), shape, NUM_OUTPUTS)
    smallest = smallest_cost(genotype.replace(group_penalty=0.1), shape, NUM_OUTPUTS)
    require(
        smallest_cost(genotype, shape, NUM_OUTPUTS) == genotype_cost(genotype, shape, NUM_OUTPUTS),
        f"{case}: without pruning the smallest cost is not the cost",
    )

    for dead_share in _DEAD_SHARES:
        pruned = compact(genotype.family, case.params(dead_share))
        cost = cost_of(genotype.family, shapes_of(pruned), shape, "float32")
        for name in _COSTS:
            low, value, high = (getattr(c, name) for c in (smallest, cost, whole))
            require(
                low <= value <= high,
                f"{case}: {name} of the pruned network is {value}, expected from {low} to {high}",
            )
    require(
        cost == smallest,
        f"{case}: nothing but dead units leaves {cost}, expected the smallest network {smallest}",
    )


def monotone_values_raise_every_cost(case: FamilyCase) -> None:
    """With a value in ``monotone`` no cost falls: the search finds the dearest genotype by them."""
    values = dict(case.genotype.values)
    for name in case.family.monotone:
        value = values.get(name)
        if value is None or isinstance(value, str) or value == ():
            continue

        larger = tuple(v + 1 for v in value) if isinstance(value, tuple) else value + 1
        try:
            grown = case.genotype.replace(**{name: larger})
            after = genotype_cost(grown, case.input_shape, NUM_OUTPUTS)
        except ConfigError:  # there is no such network
            continue

        before = genotype_cost(case.genotype, case.input_shape, NUM_OUTPUTS)
        for cost in _COSTS:
            require(
                getattr(after, cost) >= getattr(before, cost),
                f"{case}: '{name}' is in monotone, and {cost} falls from {getattr(before, cost)} "
                f"to {getattr(after, cost)} when it grows to {larger}",
            )


def its_form_is_the_same_network(case: FamilyCase) -> None:
    """A network enters the form that students are trained in, and leaves it, as what it is."""
    form = case.genotype.form
    if form is None:
        return

    x = case.inputs(8).double()
    for dead_share in (0.0, 0.5):
        pruned = compact(case.genotype.family, case.params(dead_share))
        plain = {name: p.double() for name, p in pruned.items()}
        expected = case.family.forward(plain, x)

        trained, constants = form.enter(plain, [x])
        raw = form.forward(trained, constants, x)
        require_close(raw, expected, 1e-6, f"{case}: outputs in its form")
        left = form.leave(trained, form.settle(trained, constants, [x]))
        require(
            shapes_of(left) == shapes_of(plain) and list(left) == list(plain),
            f"{case}: out of its form it has {shapes_of(left)}, expected {shapes_of(plain)}",
        )
        require_close(
            case.family.forward(left, x), expected, 1e-6, f"{case}: outputs out of its form"
        )


def its_layers_are_its_forward(case: FamilyCase) -> None:
    """Elementary layers, where a family gives some, compute what its forward does."""
    x = case.inputs(8).double()
    for dead_share in (0.0, 0.5):
        pruned = compact(case.genotype.family, case.params(dead_share))
        params = {name: p.double() for name, p in pruned.items()}
        layers = case.family.layers(params)
        if layers is None:
            return
        outputs = case.family.forward(params, x)
        require_close(
            run_layers(layers, x),
            outputs,
            1e-9 * max(1.0, float(outputs.abs().max())),
            f"{case}: outputs of the layers that it gives",
        )


def its_affine_layers_agree_with_themselves(case: FamilyCase) -> None:
    """Transpose, magnitudes and offset of affine layers are those of what they compute."""
    params = {name: p.double() for name, p in case.params(0.0).items()}
    generator = torch.Generator().manual_seed(7)
    shape = tuple(case.inputs(1).shape[1:])
    for layer in case.family.layers(params) or ():
        # of both signs, which numbers behind an activation may not be
        x = torch.randn((3, *shape), generator=generator).double()
        outputs = layer.forward(x)
        if isinstance(layer, Affine):
            what = f"{case}: {type(layer).__name__}"
            products = layer.linear(x)
            offset = 0.0 if layer.bias is None else layer.bias
            require_close(products + offset, outputs, 1e-9, f"{what}: linear with bias")

            a = torch.randn(outputs.shape, generator=generator).double()
            back = (layer.transposed(a, shape) * x).sum()
            require_close(back, (a * products).sum(), 1e-9, f"{what}: transposed")
            least = layer.absolute().linear(x.abs()) - products.abs()
            require(bool((least >= -1e-9).all()), f"{what}: absolute: smaller than what it bounds")
        shape = tuple(outputs.shape[1:])


def a_genotype_survives_json_and_names_its_layers(case: FamilyCase) -> None:
    """Genotypes are written and read again, and layers are described for people."""
    again = Genotype.from_json(case.genotype.to_json())
    require(
        again == case.genotype and str(again) == str(case.genotype),
        f"{case}: read again it is {again}",
    )

    shapes = case.shapes
    rows = case.family.describe(shapes)
    columns = {"layer", "kind", "inputs", "outputs", "params"}
    require(
        all(set(row) == columns for row in rows),
        f"{case}: describe gives {rows}, expected rows of {sorted(columns)}",
    )
    described, held = sum(row["params"] for row in rows), count_params(shapes)
    require(
        described == held, f"{case}: describe counts {described} parameters, the network has {held}"
    )
    layers = {row["layer"] for row in rows}
    unknown = {group.layer for group in case.family.groups(shapes)} - layers
    require(not unknown, f"{case}: groups name the layers {sorted(unknown)}, describe does not")


def it_is_stored_in_every_type(case: FamilyCase) -> None:
    """Types of storage change bytes alone; parameters of one axis are never rounded to int8."""
    params = case.params(0.0)
    base = genotype_cost(case.genotype, case.input_shape, NUM_OUTPUTS)
    for dtype in STORAGE_DTYPES:
        stored = encode(params, dtype)
        read = decode(dict(sorted(stored.items())))
        require(
            set(read) == set(params), f"{case}: stored as {dtype} and read it has {sorted(read)}"
        )
        for name, value in params.items():
            is_rounded = stored[name].dtype == torch.int8
            require(
                dtype != "int8" or is_rounded == (value.dim() > 1),
                f"{case}: '{name}' of {value.dim()} axes is stored as {stored[name].dtype}",
            )

        genotype = case.genotype.replace(storage_dtype=dtype)
        cost = genotype_cost(genotype, case.input_shape, NUM_OUTPUTS)
        require(
            (cost.macs, cost.params) == (base.macs, base.params)
            and genotype.architecture() == case.genotype.architecture(),
            f"{case}: stored as {dtype} it costs {cost}, expected other bytes alone",
        )


def unknown_and_impossible_values_are_refused(case: FamilyCase) -> None:
    """A value that is misspelt or impossible is named in the refusal."""
    impossible = {"wdith": 3, "storage_dtype": "bfloat16", "group_penalty": -1}
    for name, value in impossible.items():
        values = {**dict(case.genotype.values), name: value}
        said = require_refusal(
            partial(Genotype, case.genotype.family, **values),
            (ConfigError,),
            f"{case}: takes {name}={value!r}, expected a ConfigError; see values.check_names",
        )
        require(name in said, f"{case}: refuses {name}={value!r} without naming it: {said}")


def canonical_values_are_a_fixed_point(case: FamilyCase) -> None:
    """Completed values are completed already, so that equal genotypes are found to be equal."""
    full = dict(case.genotype.values)
    values = {name: value for name, value in full.items() if name not in COMMON_VALUES}
    again = case.family.canonical(values)
    require(again == values, f"{case}: canonical of {values} is {again}, expected the same")
    numbers = [v for v in values.values() if isinstance(v, int | float)]
    require(
        all(math.isfinite(number) for number in numbers), f"{case}: values are not finite: {values}"
    )


FAMILY_CHECKS = (
    names_and_order_follow_the_rules,
    the_head_gives_the_raw_outputs,
    macs_are_those_that_are_counted,
    outputs_do_not_depend_on_the_batch,
    a_missing_parameter_is_noticed,
    groups_are_rows_and_columns,
    removing_dead_units_changes_no_output,
    costs_lie_between_the_smallest_and_the_whole,
    monotone_values_raise_every_cost,
    its_form_is_the_same_network,
    its_layers_are_its_forward,
    its_affine_layers_agree_with_themselves,
    a_genotype_survives_json_and_names_its_layers,
    it_is_stored_in_every_type,
    unknown_and_impossible_values_are_refused,
    canonical_values_are_a_fixed_point,
)
"""Every promise of a family: functions of a ``FamilyCase``."""
