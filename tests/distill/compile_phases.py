"""Compile the device programs without a device, and print what they take as JSON.

python -m tests.distill.compile_phases

Triton must not have been told to interpret, which is why this is a program of its own.
"""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gped_nas.distill.phases import update
from gped_nas.distill.phases.bundle import FULL, LARGE, SMALL
from gped_nas.distill.phases.chain_programs import descend, gather, likelihood_gradient, move
from gped_nas.distill.phases.chain_walk import CHAINS
from gped_nas.distill.phases.launch import MOST_POLLS
from gped_nas.distill.phases.programs import walk
from gped_nas.distill.phases.rules import Kind
from gped_nas.distill.phases.update_programs import adamw, sgd, shrink
from gped_nas.distill.pruning import NEWTON_STEPS

CAPABILITIES = (80, 90)
CUOBJDUMP = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
FLOATS = {"bfloat16": "*bf16", "float32": "*fp32"}


@dataclass(frozen=True)
class Case:
    """A program as it is launched.

    Attributes:
        name, dtype: what it is called in the table.
        function: of Triton.
        types: of its arguments, in their order.
        constants: its other arguments.
        options: Triton's.
    """

    name: str
    dtype: str
    function: object
    types: dict[str, str]
    constants: dict[str, object]
    options: dict[str, int]


def walks():
    """The walk in each of its launches, without anything taken off units."""
    cases = []
    for name, launch, dtype in (
        ("walk small", SMALL, "bfloat16"),
        ("walk large", LARGE, "bfloat16"),
        ("walk full", FULL, "float32"),
    ):
        numbers = dict.fromkeys(
            ("READ", "OUTPUT", "OUTPUT_GRAD", "CENTER", "WEIGHT", "WEIGHT_GRAD"), FLOATS[dtype]
        )
        types = {"TILES": "*i32", "num_tiles": "i32", "COUNTERS": "*i32", **numbers, "batch": "i32"}
        constants = {
            "IS_CENTERED": False,
            "BM": launch.sizes.rows,
            "BN": launch.sizes.columns,
            "BK": launch.depth,
            "PRECISION": launch.precision,
            "MOST_POLLS": MOST_POLLS,
        }
        options = {"num_warps": launch.warps, "num_stages": launch.stages}
        cases.append(Case(name, dtype, walk, types, constants, options))
    return cases


def updates():
    """Updates and the proximal step, which keep a rounded copy of the parameters."""
    masters, rounded = FLOATS["float32"], FLOATS["bfloat16"]
    block = {"HAS_WORK": True, "BLOCK": update._BLOCK}
    of_adamw = {
        **dict.fromkeys(("THETA", "FIRST", "SECOND"), masters),
        **dict.fromkeys(("WORK_GRAD", "WORK"), rounded),
        **dict.fromkeys(("LR", "FACTORS", "UPDATES"), masters),
        "size": "i32",
        **dict.fromkeys(("beta1", "beta2", "log2_beta1", "log2_beta2", "decay", "eps"), "fp32"),
    }
    of_sgd = {
        **dict.fromkeys(("THETA", "MOMENTUM"), masters),
        **dict.fromkeys(("WORK_GRAD", "WORK"), rounded),
        **dict.fromkeys(("LR", "FACTORS"), masters),
        "size": "i32",
        **dict.fromkeys(("momentum", "decay"), "fp32"),
    }
    of_shrink = {
        "ROWS": "*i32",
        **dict.fromkeys(("PENALTIES", "THETA", "SECOND"), masters),
        "WORK": rounded,
        "UPDATES": masters,
        **dict.fromkeys(("lr_sum", "log2_beta2", "eps"), "fp32"),
    }
    shrinking = {
        "IS_ADAPTIVE": True,
        "NEWTON_STEPS": NEWTON_STEPS,
        "HAS_WORK": True,
        "BM": update._UNITS,
        "BN": update._COLUMNS,
    }
    return [
        Case("adamw", "bfloat16", adamw, of_adamw, block, {}),
        Case("sgd", "bfloat16", sgd, of_sgd, {"HAS_MOMENTUM": True, **block}, {}),
        Case("shrink", "bfloat16", shrink, of_shrink, shrinking, {}),
    ]


def chains():
    """The walk that a teacher's chains take, and what is around it."""
    (walk_of_students, *_) = walks()
    full = FLOATS["float32"]
    counted = {"INDEX": "*i32", "PLACE": "*i32"}
    of_walk = {
        name: full if kind == FLOATS["bfloat16"] else kind
        for name, kind in walk_of_students.types.items()
    }
    tile = {"BM": CHAINS.sizes.rows, "BN": CHAINS.sizes.columns, "BK": CHAINS.depth}
    walking = {**walk_of_students.constants, **tile, "PRECISION": CHAINS.precision}
    options = {"num_warps": CHAINS.warps, "num_stages": CHAINS.stages}
    of_gather = {
        "X": full,
        **counted,
        "READ": full,
        **dict.fromkeys(("size", "first_rows", "batch_size", "columns", "length"), "i32"),
    }
    sizes = ("num_outputs", "rows", "batch_size", "columns", "length", "y_columns", "y_step")
    of_likelihood = {
        **dict.fromkeys(("RAW", "RAW_GRAD"), full),
        "Y": "*i64",
        **counted,
        **dict.fromkeys(sizes, "i32"),
        "scale": "fp32",
    }
    numbers = ("THETA", "FIRST", "GRAD", "PRIOR", "NUMBERS")
    of_move = {
        **dict.fromkeys(numbers, full),
        **dict.fromkeys(("KEYS", "STEPS"), "*i64"),
        "PLACE": "*i32",
        **dict.fromkeys(("size", "length"), "i32"),
        **dict.fromkeys(("grad_scale", "damping"), "fp32"),
    }
    turned = {"IS_CATEGORICAL": True, "BU": 16, "BB": 32}
    moving = {"IS_LAPLACE": False, "QUARTER": 256}
    cases = [
        Case("walk of chains", "float32", walk, of_walk, walking, options),
        Case("gather", "float32", gather, of_gather, {"BB": 32, "BD": 64}, {}),
        Case("likelihood", "float32", likelihood_gradient, of_likelihood, turned, {}),
    ]
    numbers = ("THETA", "FIRST", "SECOND", "ANCHOR", "GRAD", "PRIOR", "NUMBERS")
    of_descend = {
        **dict.fromkeys(numbers, full),
        "PLACE": "*i32",
        **dict.fromkeys(("size", "length"), "i32"),
        **dict.fromkeys(("grad_scale", "share1", "share2", "eps"), "fp32"),
    }
    descending = {"HAS_ANCHOR": True, "IS_LAPLACE": False, "BLOCK": 1024}
    cases.append(Case("descend", "float32", descend, of_descend, descending, {}))
    for kind in (Kind.LANGEVIN, Kind.PRECONDITIONED, Kind.HAMILTONIAN):
        name = f"move, {kind.name.lower()}"
        cases.append(Case(name, "float32", move, of_move, {"RULE": int(kind), **moving}, {}))
    return cases


def resources(case, capability):
    """Warps, registers a thread, bytes of shared memory, bytes a thread that were spilled."""
    names = list(case.types)
    aligned = [i for i, name in enumerate(names) if case.types[name][0] == "*" or name == "batch"]
    source = ASTSource(
        fn=case.function,
        signature={**case.types, **dict.fromkeys(case.constants, "constexpr")},
        constexprs=case.constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options=case.options)

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(CUOBJDUMP), "-res-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = dict(part.split(":") for part in told.split() if ":" in part and part[0].isupper())
    return {
        "warps": compiled.metadata.num_warps,
        "registers": int(usage["REG"]),
        "shared": int(compiled.metadata.shared),
        "spilled": int(usage["LOCAL"]) + int(usage["STACK"]),
    }


def main():
    table = []
    for case in walks() + updates() + chains():
        for capability in CAPABILITIES:
            row = {"program": case.name, "dtype": case.dtype, "capability": capability}
            table.append({**row, **resources(case, capability)})
    print(json.dumps(table))


if __name__ == "__main__":
    main()
