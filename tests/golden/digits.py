"""The figures of ``digits_sgld`` that no change may move: run it, and keep what it says.

``make golden`` writes them to ``digits_sgld-<platform>.json`` beside this file. Last bits depend on
the processor and on torch, so a file holds for the platform in its name and for no other.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from threadpoolctl import threadpool_info

HERE = Path(__file__).parent
SPACE = HERE.parents[1] / "search_spaces" / "digits_sgld.yaml"
PROGRAM = Path(sys.executable).with_name("gped-search")

PACKAGES = ("torch", "numpy", "optuna", "scikit-learn")

# What a trial says beside its metrics; compared where bits are, by one digest a trial.
DETAILS = ("state", "reason", "intervals", "n")
CURVES = ("loss", "rungs")


def platform_name() -> str:
    """What decides last bits: the processor, what torch and numpy make of it, and versions.

    Numpy's products follow the kind of processor that OpenBLAS takes this one for, which the
    environment can change.
    """
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    vendor = re.search(r"vendor_id\s*: (\w+)", text)
    family = re.search(r"cpu family\s*: (\d+)", text)
    model = re.search(r"model\s*: (\d+)", text)
    flags = set(re.findall(r"\b(?:amx_tile|avx512_bf16)\b", text))

    parts = [
        platform.machine(),
        vendor.group(1) if vendor else platform.system(),
        family.group(1) if family else platform.processor(),
        model.group(1) if model else "",
        torch.backends.cpu.get_cpu_capability(),
        *sorted(flags),
        *sorted({blas["architecture"] for blas in threadpool_info() if "architecture" in blas}),
        *(f"{package}-{version(package).split('+')[0]}" for package in PACKAGES),
    ]
    return "-".join(part for part in parts if part).lower()


def golden_file() -> Path:
    """Where this platform's figures lie; the file need not exist."""
    return HERE / f"digits_sgld-{platform_name()}.json"


def golden_files() -> list[Path]:
    """Every file of figures that is kept."""
    return sorted(HERE.glob("digits_sgld-*.json"))


def space_digest() -> str:
    """SHA-256 of the settings of the shipped space: figures of other settings are stale."""
    return _digest(yaml.safe_load(SPACE.read_text()))


def figures(folder: Path) -> dict[str, Any]:
    """Run ``digits_sgld`` below a folder with the installed command; its figures, as plain data."""
    _call(
        folder,
        "run",
        "digits_sgld",
        *("--set", "twins.seeds=0"),
        *("--set", "search.keep={}"),
        *("--set", "search.every_dtype=false"),
    )
    teacher = json.loads(_call(folder, "teacher", "info", "digits_sgld", "--format", "json"))
    trials = json.loads(_call(folder, "trials", "reports/digits_sgld", "--format", "json"))
    front = json.loads(_call(folder, "front", "reports/digits_sgld", "--format", "json"))

    weights = {}
    students = folder / "reports" / "digits_sgld" / "students"
    for path in sorted(students.glob("*/weights.safetensors")):
        weights[path.parent.name] = hashlib.sha256(path.read_bytes()).hexdigest()

    return {
        "platform": platform_name(),
        "space": space_digest(),
        "stream": teacher["digest"],
        "trials": [_select(record) for record in trials],
        "front": [{key: record[key] for key in ("trial", "metrics")} for record in front],
        "weights": weights,
    }


def _select(record: dict[str, Any]) -> dict[str, Any]:
    details = {key: record[key] for key in DETAILS}
    curves = {key: record["extra"][key] for key in CURVES}
    return {
        **{key: record[key] for key in ("trial", "genotype", "costs", "metrics")},
        "details": _digest({**details, **curves}),
    }


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _call(folder: Path, *args: str) -> str:
    # One thread: a product cut among threads rounds otherwise on each number of them.
    env = {**os.environ, "GPED_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    for name in ("GPED_STORAGE", "OPTUNA_STORAGE"):
        env.pop(name, None)

    command = [str(PROGRAM), *args]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(data: dict[str, Any]) -> Path:
    """Keep figures as this platform's, a line a trial."""
    lines = []
    for key, value in data.items():
        if isinstance(value, list):
            rows = ",\n".join("  " + json.dumps(row, sort_keys=True) for row in value)
            lines.append(f'"{key}": [\n{rows}\n]')
        else:
            lines.append(f'"{key}": {json.dumps(value, sort_keys=True)}')
    golden_file().write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return golden_file()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(write(figures(Path(name))))
