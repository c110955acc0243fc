"""Verbs about teachers: ``teacher build``, ``teacher info``, ``teacher verify``."""

from typing import Any

import typer

from gped_nas.cli.options import Device, FormatOption, Processes, Seed, Set, Space, overrides
from gped_nas.cli.output import Format, print_json, print_pairs, print_rows
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable

app = typer.Typer(help="Build, show and check the teacher's stream of posterior samples.", no_args_is_help=True)


@app.command()
def build(
    space: Space, set_: Set = None, seed: Seed = None, device: Device = "auto", processes: Processes = None
) -> None:
    """Sample the teacher's posterior, unless its stream is there; a killed build goes on where it stopped."""
    from gped_nas.api import build_teacher, load_space, new_session

    found = load_space(space, overrides(set_, seed))
    with stoppable(f"gped-search teacher build {space}") as should_stop, progress() as report:
        session = new_session(device, progress=report, should_stop=should_stop, processes=processes)
        teacher = build_teacher(found, session)
    say(f"{teacher.stream.num_samples} posterior samples in {teacher.seconds:.1f} s")
    print(teacher.stream.folder)


@app.command()
def info(space: Space, format: FormatOption = Format.table, set_: Set = None, seed: Seed = None) -> None:
    """Show the teacher's stream: samples, predictions, accuracy and NLL on validation."""
    from gped_nas.api import load_dataset, load_space, new_session
    from gped_nas.api.teacher import Teacher, averaged, existing_stream, samples_to_nll
    from gped_nas.evaluate.base import draw_resamples, evaluate

    found, session = load_space(space, overrides(set_, seed)), new_session("cpu")
    dataset = load_dataset(found)
    stream = existing_stream(found, dataset, session)
    log_prob = Teacher(found, dataset, stream).log_prob("validation", session)
    mean, labels = averaged(log_prob, stream.weight_S), dataset.labels("validation")
    measured = evaluate(mean, labels, resamples=draw_resamples(len(labels), root=found.seed, part="validation"))
    about: dict[str, Any] = {
        "folder": str(stream.folder),
        "digest": stream.digest,
        "teacher": f"{found.genotype} by {found.method.name}",
        "dataset": f"{dataset.name}: {dataset.split_text}",
        "posterior samples": stream.num_samples,
        "bytes on disk": stream.nbytes(),
        "validation metrics": {
            name: {"value": value, "interval": list(measured.intervals[name]), "n": measured.n[name]}
            for name, value in measured.metrics.items()
        },
        "samples to NLL": samples_to_nll(log_prob, stream.weight_S, labels),
    }
    if format is Format.json:
        print_json(about)
        return
    metrics, curve = about.pop("validation metrics"), about.pop("samples to NLL")
    if format is Format.csv:
        print_pairs({**about, **{f"validation {name}": m["value"] for name, m in metrics.items()}}, format)
        return
    print_pairs(about, format)
    rows = [
        {"metric": name, "validation": m["value"], "low": m["interval"][0], "high": m["interval"][1], "n": m["n"]}
        for name, m in metrics.items()
    ]
    print_rows(rows, format, title="average over the posterior, 95 % interval")
    print_rows([{"samples": int(s), "validation NLL": v} for s, v in curve], format, title="more samples")


@app.command()
def verify(space: Space, set_: Set = None, seed: Seed = None) -> None:
    """Check every byte of the teacher's stream against its digests; exit 4 if any is wrong."""
    from gped_nas.api import load_dataset, load_space
    from gped_nas.api.session import Session
    from gped_nas.api.teacher import existing_stream
    from gped_nas.errors import StreamError

    found = load_space(space, overrides(set_, seed))
    stream = existing_stream(found, load_dataset(found), Session())
    problems = stream.verify()
    if problems:
        raise StreamError("\n".join(problems))
    print(f"{stream.folder}: every byte is as it was sealed")
