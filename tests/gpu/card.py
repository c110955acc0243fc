"""The parts of ``card.sh``: each has a time limit and a log, and none stops the others.

After each part ``card.json`` is written anew and ``card.log`` has all output so far; ``table.txt``
comes last.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.gpu.table import table_of
from tests.gpu.wheels import missing_packages, versions

ROOT = Path(__file__).parents[2]
WHOLE_S = 470.0
"""Seconds for everything; the caller has eight minutes."""
LEAST_S = 8.0
"""Seconds that a part must have to be begun."""
PROGRAM = (sys.executable, "-c", "from gped_nas.cli import main; main()")
PROFILE = "profile"
"""A part that runs only where it is asked for: who takes the host's time."""
_RUN_PROFILED = """
import cProfile, pstats, gped_nas.cli
profile = cProfile.Profile()
try:
    profile.runcall(gped_nas.cli.main)
finally:
    for order in ("cumulative", "tottime"):
        pstats.Stats(profile).sort_stats(order).print_stats(70)
"""
PROFILED = (sys.executable, "-c", _RUN_PROFILED)
TINY = (
    "teacher.genotype.width=8",
    "teacher.method.num_samples=4",
    "teacher.method.burn_in=20",
    "teacher.method.thinning=10",
    "recipe.steps=40",
    "recipe.components=0",
    "baseline.steps=100",
    "baseline.precisions=[1.0]",
)
STUDENTS_AT_ONCE = 128


@dataclass(frozen=True)
class Part:
    """A command with a limit.

    Attributes:
        name: for the table.
        command: what runs, from the project's root.
        limit_s: after which it is ended.
        results: JSON files that it leaves, relative to its folder.
        then: a command whose output is a JSON result as well; also after a limit.
        needs: a part that must have ended well before.
        missing: why it cannot run; empty where it can.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float
    results: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    needs: str = ""
    missing: str = ""


@dataclass
class Outcome:
    """What became of a part.

    Attributes:
        name: of the part.
        state: ``ok``, ``failed``, ``timeout`` or ``skipped``.
        seconds: it took.
        reason: why it did not end well.
        results: what its JSON files and ``then`` hold.
    """

    name: str
    state: str
    seconds: float = 0.0
    reason: str = ""
    results: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What is run where not everything is wanted.

    Attributes:
        tests: files or folders of tests.
        cases: populations of the kernel's bench; all of them if empty.
    """

    tests: tuple[str, ...] = ("tests/gpu",)
    cases: tuple[str, ...] = ()


EVERYTHING = Choice()


def parts_of(folder: Path, *, is_dry: bool, choice: Choice = EVERYTHING) -> list[Part]:
    """All parts, the most valuable first.

    Args:
        folder: for what they leave.
        is_dry: whether sizes are tiny and the device is a CPU.
        choice: what of them is run.
    """
    # the plugin of benchmarks warns beside xdist, and warnings are errors
    plugins = ["-p", "no:cacheprovider", "-p", "no:benchmark"]
    pytest = [sys.executable, "-m", "pytest", "-q", *plugins]
    if not is_dry and importlib.util.find_spec("xdist"):
        pytest += ["-n", "4"]
    tests = ("tests/gpu/test_phases.py",) if is_dry else choice.tests

    def bench(name: str, *more: str) -> tuple[str, ...]:
        flags = ("--device", "cuda", "--out", str(folder), *(("--dry-run",) if is_dry else more))
        return (sys.executable, f"tests/bench/bench_{name}.py", *flags)

    kernel = ("--seconds", "45")
    if choice.cases:
        kernel += ("--cases", *choice.cases)

    has_bench = (ROOT / "tests/bench/bench_teacher.py").is_file()
    has_fashion = is_dry or has_fashion_mnist(os.environ)
    missing = "" if has_fashion else "Fashion-MNIST is not in $GPED_DATA"
    fashion = "digits_sgld" if is_dry else "fashion_sgld"
    machine = (sys.executable, "-V") if is_dry else ("nvidia-smi",)
    return [
        Part("machine", machine, 20),
        Part("tests", (*pytest, *tests, "--ignore=tests/gpu/test_card.py"), 100),
        Part("kernel", bench("kernel", *kernel), 110, ("kernel-cuda.json",)),
        Part(
            "teacher",
            bench("teacher"),
            70,
            ("teacher-cuda.json",),
            missing="" if has_bench else "there is no bench of it",
        ),
        Part(
            "fashion teacher",
            (*PROGRAM, "teacher", "build", fashion, "-v", *device(is_dry), *settings(is_dry)),
            60,
            missing=missing,
        ),
        search("fashion search", fashion, folder, 115, is_dry=is_dry, needs="fashion teacher"),
        search("digits search", "digits_sgld", folder, 70, is_dry=is_dry),
        Part(
            "front",
            bench("time_to_front", "--sample", "2", "--online", "1"),
            70,
            ("time_to_front-cuda.json",),
            missing=missing,
        ),
        search(
            PROFILE,
            fashion,
            folder,
            60,
            is_dry=is_dry,
            needs="fashion teacher",
            program=PROFILED,
            num_trials=256,
        ),
    ]


def search(
    name: str,
    space: str,
    folder: Path,
    timeout_s: int,
    *,
    is_dry: bool,
    needs: str = "",
    program: Sequence[str] = PROGRAM,
    num_trials: int = 1000,
) -> Part:
    """A search of many trials that ends itself at its timeout, and how far it came."""
    study = name.replace(" ", "_")
    where = ("--out", str(folder))
    num = "4" if is_dry else str(num_trials)
    size = 4 if is_dry else STUDENTS_AT_ONCE
    command = (
        *(*program, "run", space, "-v", *where, *device(is_dry), "--study-name", study),
        *("--n-trials", num, "--timeout", str(timeout_s)),
        *("--set", f"search.students_at_once={size}", *settings(is_dry)),
    )
    then = (*PROGRAM, "status", study, *where, "--format", "json")
    return Part(name, command, timeout_s + 25, then=then, needs=needs)


def device(is_dry: bool) -> tuple[str, ...]:
    """The device, as an option of the command."""
    return ("--device", "cpu" if is_dry else "cuda")


def settings(is_dry: bool) -> tuple[str, ...]:
    """Overrides that make a space tiny, as options of the command."""
    return tuple(text for setting in TINY if is_dry for text in ("--set", setting))


def has_fashion_mnist(environment: Mapping[str, str]) -> bool:
    """Whether the folder of data sets has it."""
    return (Path(environment.get("GPED_DATA", "")) / "FashionMNIST").is_dir()


def run_parts(
    parts: Sequence[Part],
    folder: Path,
    out: Path,
    *,
    facts: Mapping[str, Any],
    ends: float,
) -> list[Outcome]:
    """Run all parts one after the other; files in ``out`` are current after each.

    Args:
        parts: in order.
        folder: where their files are.
        out: for ``card.json``, ``card.log`` and ``table.txt``.
        facts: of the machine, for ``card.json``.
        ends: when all must be over, by ``time.time``.
    """
    outcomes: list[Outcome] = []
    told: dict[str, Any] = {**facts, "parts": []}
    for part in parts:
        outcomes.append(run_part(part, outcomes, folder, out / "card.log", ends))
        told["parts"].append(asdict(outcomes[-1]))
        (out / "card.json").write_text(json.dumps(told, indent=1))
        print(f"{part.name}: {outcomes[-1].state} {outcomes[-1].seconds:.0f} s", flush=True)

    text = table_of(told)
    (out / "table.txt").write_text(text)
    print(text, flush=True)
    return outcomes


def run_part(
    part: Part, earlier: Sequence[Outcome], folder: Path, log: Path, ends: float
) -> Outcome:
    """Run one part within its limit and what is left of the whole time."""
    limit_s = min(part.limit_s, ends - time.time())
    reason = part.missing
    needed = [outcome for outcome in earlier if outcome.name == part.needs]
    if not reason and any(outcome.state != "ok" for outcome in needed):
        reason = f"{part.needs} did not end well"
    if not reason and limit_s < LEAST_S:
        reason = "no time was left"
    if reason:
        return Outcome(part.name, "skipped", reason=reason)

    started = time.monotonic()
    code = run_logged(part.command, log, limit_s, title=part.name)
    outcome = Outcome(part.name, "ok", time.monotonic() - started)
    if code is None:
        outcome.state, outcome.reason = "timeout", f"ended after {limit_s:.0f} s"
    elif code != 0:
        outcome.state, outcome.reason = "failed", f"exit code {code}; see card.log"

    for name in part.results:
        outcome.results[name] = read_json(folder / name)
    if part.then:
        outcome.results["status"] = answer_of(part.then)
    outcome.results["last lines"] = log.read_text(errors="replace").splitlines()[-12:]
    return outcome


def run_logged(command: Sequence[str], log: Path, limit_s: float, *, title: str) -> int | None:
    """Run a command; its exit code, or None where the limit ended it.

    Each line of output goes to the log with the seconds since the start.
    """
    with log.open("a") as file:
        file.write(f"\n===== {title}: {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        reader = threading.Thread(target=_copy_lines, args=(process.stdout, file), daemon=True)
        reader.start()
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            # its children too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
        reader.join(5)
        return code


def _copy_lines(source: IO[str], file: IO[str]) -> None:
    started = time.monotonic()
    with source:
        for line in source:
            file.write(f"{time.monotonic() - started:6.1f}  {line}")
            file.flush()


def read_json(path: Path) -> Any:
    """What a file holds; None where there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def answer_of(command: Sequence[str]) -> Any:
    """The JSON that a command prints; None where it does not."""
    try:
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
        return json.loads(printed.stdout)
    except (subprocess.SubprocessError, ValueError):
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the packages and run the parts; 1 if any of it did not end well."""
    parser = argparse.ArgumentParser(prog="tests/gpu/card.sh")
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of parts")
    parser.add_argument("--tests", nargs="*", help="files of tests in place of all")
    parser.add_argument("--cases", nargs="*", help="populations of the kernel's bench")
    args = parser.parse_args(arguments)

    started = float(os.environ.get("CARD_STARTED", time.time()))
    missing = missing_packages(ROOT / "pyproject.toml", ROOT / ".whl")
    for line in missing:
        print(line, flush=True)

    work = Path(tempfile.mkdtemp())
    os.environ |= {"GPED_CACHE": str(work / "cache"), "PYTHONUNBUFFERED": "1"}
    if args.dry_run:
        os.environ |= {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
    choice = Choice(
        tests=tuple(args.tests or EVERYTHING.tests), cases=tuple(args.cases or EVERYTHING.cases)
    )
    parts = parts_of(work, is_dry=args.dry_run, choice=choice)
    only = [part.name for part in parts if part.name != PROFILE]
    if args.only is not None:
        only = args.only
    chosen = [part for part in parts if part.name in only]
    facts = {"is_dry": args.dry_run, "missing packages": missing, **versions()}

    try:
        outcomes = run_parts(chosen, work, args.out, facts=facts, ends=started + WHOLE_S)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    is_well = all(outcome.state in ("ok", "skipped") for outcome in outcomes)
    return 0 if is_well and not (missing and args.dry_run) else 1


if __name__ == "__main__":
    sys.exit(main())
