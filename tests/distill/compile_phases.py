"""Compile the device programs without a device, and print what they take as JSON.

python -m tests.distill.compile_phases

Triton must not have been told to interpret, which is why this is a program of its own.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gped_nas.distill.phases.bundle import LARGE, SMALL
from gped_nas.distill.phases.launch import MOST_POLLS
from gped_nas.distill.phases.programs import walk

TYPES = {
    "TILES": "*i32",
    "num_tiles": "i32",
    "COUNTERS": "*i32",
    "READ": "*bf16",
    "OUTPUT": "*bf16",
    "OUTPUT_GRAD": "*bf16",
    "CENTER": "*bf16",
    "WEIGHT": "*bf16",
    "WEIGHT_GRAD": "*bf16",
    "batch": "i32",
}
CUOBJDUMP = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"


def resources(launch, capability):
    """Registers a thread, bytes of shared memory, bytes a thread that were spilled."""
    constants = {
        "IS_CENTERED": False,
        "BM": launch.sizes.rows,
        "BN": launch.sizes.columns,
        "BK": launch.depth,
        "PRECISION": "ieee",
        "MOST_POLLS": MOST_POLLS,
    }
    aligned = [i for i, name in enumerate(TYPES) if TYPES[name][0] == "*" or name == "batch"]
    source = ASTSource(
        fn=walk,
        signature={**TYPES, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(CUOBJDUMP), "-res-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = dict(part.split(":") for part in told.split() if ":" in part and part[0].isupper())
    return {
        "registers": int(usage["REG"]),
        "shared": int(compiled.metadata.shared),
        "spilled": int(usage["LOCAL"]) + int(usage["STACK"]),
    }


def main():
    table = []
    for name, launch in {"small": SMALL, "large": LARGE}.items():
        for capability in (80, 90):
            row = {"launch": name, "capability": capability}
            table.append({**row, **resources(launch, capability)})
    print(json.dumps(table))


if __name__ == "__main__":
    main()
