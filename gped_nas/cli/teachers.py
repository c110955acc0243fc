"""Verbs about teachers: ``teacher build``, ``info``, ``predict``, ``compare`` and ``verify``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gped_nas.cli.answers import flat, with_likeliest_bounds
from gped_nas.cli.options import (
    Device,
    FormatOption,
    Inputs,
    Processes,
    Seed,
    Set,
    Space,
    overrides,
)
from gped_nas.cli.output import Format, print_json, print_pairs, print_rows, print_text
from gped_nas.cli.progress import progress, say
from gped_nas.cli.signals import stoppable
from gped_nas.cli.verbs import Verb, VerbGroup

if TYPE_CHECKING:
    from gped_nas.api.diagnosis import Diagnosis

Methods = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...", help="Methods by name, or YAML files of their settings; all by default."
    ),
]
Reference = Annotated[
    str, typer.Option(help="The method that others are compared with, or 'none'.")
]
NoMap = Annotated[
    bool,
    typer.Option("--no-map", help="Compare it with no MAP network, which has to be trained once."),
]
Prior = Annotated[
    bool,
    typer.Option("--prior", help="Show what draws from the prior say, before any sampling."),
]
Credible = Annotated[
    float, typer.Option(help="Share of the posterior between the credible bounds.")
]
app = typer.Typer(help="Sample, show, ask and check the teacher's posterior.", cls=VerbGroup)


@app.command(cls=Verb)
def build(
    space: Space,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
    processes: Processes = None,
) -> None:
    """Sample the teacher's posterior, unless that is done.

    A killed build goes on where it stopped.
    """
    from gped_nas.api import build_teacher, load_space, new_session

    search_space = load_space(space, overrides(set_, seed))
    with stoppable() as should_stop, progress() as teller:
        session = new_session(
            device, progress=teller.report, should_stop=should_stop, processes=processes
        )
        teacher = build_teacher(search_space, session)

    say(f"{teacher.stream.num_samples} posterior samples in {teacher.seconds:.1f} s")
    print(teacher.stream.folder)


@app.command(cls=Verb)
def info(
    space: Space,
    format: FormatOption = Format.table,
    set_: Set = None,
    seed: Seed = None,
    no_map: NoMap = False,
    prior: Prior = False,
) -> None:
    """Show the teacher's stream, and whether to trust it.

    The stream, its metrics on validation, and two verdicts: on its predictions beside those of one
    network of its size, and on the posterior. With --prior, what its prior says instead.
    """
    if prior:
        _show_prior(space, format, overrides(set_, seed))
        return

    from dataclasses import asdict

    from gped_nas.api import load_dataset, load_space, new_session
    from gped_nas.api.calibrating import calibrated
    from gped_nas.api.chance import beside_chance, import_of
    from gped_nas.api.diagnosis import diagnose
    from gped_nas.api.prediction_verdict import judge_predictions
    from gped_nas.api.sampling import existing_stream, sampled_spaces, stream_key
    from gped_nas.api.teacher import Teacher
    from gped_nas.api.verdict import judge
    from gped_nas.evaluate.base import draw_resamples
    from gped_nas.evaluate.judging import evaluate_or_explain
    from gped_nas.evaluate.measured import by_name
    from gped_nas.search.teacher_words import (
        calibration_text,
        describe_calibration,
        given_costs,
    )

    search_space, session = load_space(space, overrides(set_, seed)), new_session("cpu")
    dataset = load_dataset(search_space)
    stream = existing_stream(search_space, dataset, session)
    teacher = calibrated(Teacher(search_space, dataset, stream, session))
    fit = teacher.calibration
    calibration = None if fit is None else fit.to_json()

    labels = dataset.labels("validation")
    resamples = draw_resamples(len(labels), root=search_space.seed, part="validation")
    average = teacher.averaged("validation")
    measures = by_name(evaluate_or_explain(average, labels, resamples=resamples))
    diagnosis = diagnose(teacher)
    verdict = judge(diagnosis)
    predictions = None
    if not no_map:
        with stoppable() as should_stop, progress() as teller:
            teacher.session = new_session("cpu", progress=teller.report, should_stop=should_stop)
            predictions = judge_predictions(teacher)

    summary: dict[str, Any] = {
        "folder": str(stream.folder),
        "digest": stream.digest,
        "teacher": search_space.teacher_text,
        **given_costs({"given": search_space.given and asdict(search_space.given)}),
        "dataset": f"{dataset.name}: {dataset.split_text}",
        "posterior samples": stream.num_samples,
        "calibration": "none" if calibration is None else calibration_text(calibration),
        "bytes on disk": stream.nbytes(),
    }
    found_sizes = [float(size) for size in stream.states("step_size")] if stream.has_weights else []
    if found_sizes:
        summary["step sizes found"] = found_sizes
    if import_of(search_space) is not None:
        summary["imported ensemble"] = str(beside_chance(dataset, average))
    for sampled in sampled_spaces(search_space)[1:]:
        folder = stream_key(sampled, dataset).folder(session.streams)
        is_there = "" if folder.exists() else " (not there any more)"
        summary[f"samples of {sampled.method.title()}"] = f"{folder}{is_there}"

    if format is Format.json:
        metrics = {}
        for name, measured in measures.items():
            interval = [measured.low, measured.high]
            why = {"why": measured.why} if measured.why else {}
            metrics[name] = {
                "value": measured.value,
                "interval": interval,
                "n": measured.n,
                **why,
            }
        print_json(
            {
                **summary,
                "calibration": calibration,
                "validation metrics": metrics,
                "diagnosis": diagnosis.to_json(),
                "verdict": {"level": verdict.level, "sentence": verdict.sentence},
                "prediction_verdict": None if predictions is None else predictions.to_json(),
            }
        )
        return

    if found_sizes:
        summary["step sizes found"] = ", ".join(f"{size:.3g}" for size in found_sizes)
    diagnostics = _diagnostic_pairs(diagnosis)
    if format is Format.csv:
        values = {f"validation {name}": measured.value for name, measured in measures.items()}
        verdicts = {"verdict": verdict.sentence}
        if predictions is not None:
            verdicts["prediction verdict"] = predictions.sentence
        print_pairs({**summary, **values, **diagnostics, **verdicts}, format)
        return

    # its start tells it from others, as in `gped-search gc`; all of it would break narrow lines
    print_pairs({**summary, "digest": stream.digest[:16]}, format)
    rows = []
    for name, measured in measures.items():
        low, high = measured.low, measured.high
        rows.append(
            {
                "metric": name,
                "validation": measured.value,
                "low": low,
                "high": high,
                "n": measured.n,
            }
        )
        if measured.why:
            rows[-1]["why"] = measured.why
    print_rows(rows, format, title="average over the posterior, 95 % interval")

    if diagnosis.mixing:
        title = "chains: R-hat, and bulk effective sample size"
        print_rows(_mixing_rows(diagnosis), format, title=title)
    print_pairs(diagnostics, format)

    curve = [{"samples": int(num), "validation NLL": nll} for num, nll in diagnosis.curve]
    print_rows(curve, format, title="more samples")
    if calibration is not None:
        print_text(describe_calibration(calibration))
    if predictions is not None:
        print_text(predictions.sentence)
    print_text(verdict.sentence)


def _show_prior(space: str, format: Format, overridden: dict[str, Any]) -> None:
    """What networks drawn from the teacher's prior say."""
    from gped_nas.api import describe_prior, load_space
    from gped_nas.cli.prior import print_prior

    search_space = load_space(space, overridden)
    description = describe_prior(search_space)
    prior = search_space.prior
    settings = [f"{key} {value}" for key, value in prior.model_dump(exclude={"name"}).items()]
    facts = {
        "teacher": search_space.teacher_text,
        "prior": ", ".join([prior.name, *settings]),
    }
    print_prior(description, facts, format)


def _mixing_rows(diagnosis: "Diagnosis") -> list[dict[str, Any]]:
    """A row a space, with the quantiles of R-hat and ESS over its quantities."""
    rows = []
    for name, mixing in diagnosis.mixing.items():
        row: dict[str, Any] = {
            "space": name.replace("_", "-"),
            "quantities": mixing.num,
            "constant": mixing.num_constant,
        }
        for percent, value in zip((50, 90, 99), mixing.rhat or (None,) * 3, strict=True):
            row[f"R-hat, {percent} % below"] = value
        row["above 1.1"] = mixing.above
        for percent, value in zip((50, 90, 99), mixing.ess or (None,) * 3, strict=True):
            row[f"ESS, {percent} % above"] = value
        rows.append(row)
    return rows


def _diagnostic_pairs(diagnosis: "Diagnosis") -> dict[str, Any]:
    """The diagnostics that are single numbers; what the method cannot have is said."""
    pairs: dict[str, Any] = {}
    if diagnosis.agreement is not None:
        pairs |= {
            "agreement between chains": diagnosis.agreement,
            "total variation between chains": diagnosis.total_variation,
        }

    temperatures = {"kinetic": diagnosis.kinetic, "configurational": diagnosis.configurational}
    for name, temperature in temperatures.items():
        if temperature is None:
            continue
        counted = "degrees of freedom" if name == "kinetic" else "states"
        interval = f"no interval: {temperature.why}"
        if temperature.low is not None:
            interval = f"95 % interval {temperature.low:.3f} to {temperature.high:.3f}"
        pairs[f"{name} temperature"] = (
            f"{temperature.value:.3f}, {interval}, "
            f"{temperature.degrees_of_freedom:,} {counted}; "
            f"expected {diagnosis.target_temperature:g}"
        )

    for name in diagnosis.single:
        pairs[f"{name}, one sample (mean)"] = diagnosis.single[name]
        pairs[f"{name}, average of all"] = diagnosis.average[name]

    for what, why in diagnosis.missing.items():
        pairs[what] = f"not measured: {why}"
    return pairs


@app.command(cls=Verb)
def predict(
    space: Space,
    inputs: Inputs,
    credible: Credible = 0.9,
    format: FormatOption = Format.table,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Ask the teacher's posterior about inputs, one row an input.

    A row holds the posterior average, its uncertainty in parts, and credible bounds.
    """
    from gped_nas.api import load_space, load_teacher, new_session

    search_space = load_space(space, overrides(set_, seed))
    with stoppable() as should_stop, progress() as teller:
        session = new_session(device, progress=teller.report, should_stop=should_stop)
        teacher = load_teacher(search_space, session)
        rows = teacher.predict_files(inputs, credible=credible)

    if format is Format.table:
        rows = [with_likeliest_bounds(row) for row in rows]
    print_rows(rows if format is Format.json else [flat(row) for row in rows], format)


@app.command(cls=Verb)
def compare(
    space: Space,
    methods: Methods = None,
    reference: Reference = "hmc",
    format: FormatOption = Format.table,
    set_: Set = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Build the teacher by several methods, and compare.

    They are measured on validation. Streams that exist are reused.
    """
    from dataclasses import asdict

    from gped_nas.api import compare_methods, load_space, new_session

    search_space = load_space(space, overrides(set_, seed))
    listed = None if methods is None else [name.strip() for name in methods.split(",")]
    with stoppable() as should_stop, progress() as teller:
        session = new_session(device, progress=teller.report, should_stop=should_stop)
        rows = compare_methods(
            search_space,
            methods=listed,
            reference=None if reference == "none" else reference,
            session=session,
        )

    for name, why in rows.skipped.items():
        say(f"not compared: {name}: {why}")
    print_rows([asdict(row) for row in rows], format)


@app.command(cls=Verb)
def verify(space: Space, set_: Set = None, seed: Seed = None) -> None:
    """Check every byte of the teacher's stream.

    They are checked against the stream's digests; exit 4 if any is wrong. The stream whose
    posterior samples the method reads is checked too, where it is still there.
    """
    from gped_nas.api import load_dataset, load_space
    from gped_nas.api.sampling import existing_stream, sampled_spaces, stream_key
    from gped_nas.api.session import Session
    from gped_nas.errors import StreamError

    search_space = load_space(space, overrides(set_, seed))
    dataset = load_dataset(search_space)
    session = Session()
    problems = []
    folders = []

    for sampled in sampled_spaces(search_space):
        # What was made of another stream's samples needs that one no more.
        is_source = sampled is not search_space
        if is_source and not stream_key(sampled, dataset).folder(session.streams).exists():
            continue
        stream = existing_stream(sampled, dataset, session)
        problems += stream.verify()
        folders.append(stream.folder)

    if problems:
        raise StreamError("\n".join(problems))
    for folder in folders:
        print(f"{folder}: every byte is as it was sealed")
