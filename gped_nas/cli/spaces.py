"""Verbs about search spaces: ``init`` and ``space``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gped_nas.cli.completion import complete_space
from gped_nas.cli.options import FormatOption, Seed, Set, overrides
from gped_nas.cli.output import Format, print_json, print_pairs, print_rows
from gped_nas.cli.verbs import SEARCH, Verb

app = typer.Typer()


@app.command(cls=Verb, rich_help_panel=SEARCH)
def init(
    path: Annotated[Path, typer.Argument(help="The YAML file to write.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Your own: an .npz, a CSV or Parquet file, a folder of images."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="The column of a table that is predicted.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the dataset: dataset.a=b."),
    ] = None,
    ensemble: Annotated[
        Path | None,
        typer.Option("--ensemble", help="Predictions of an ensemble: an npz, or shards."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Look at the data, and write a search space that suits them.

    It is for the digits, or for your own arrays.
    """
    from gped_nas.api.proposal import propose
    from gped_nas.cli.progress import progress, say
    from gped_nas.cli.template import space_text
    from gped_nas.config import load_yaml
    from gped_nas.data.base import load
    from gped_nas.data.facts import describe_data
    from gped_nas.data.memory import describe_memory
    from gped_nas.errors import ConfigError
    from gped_nas.io import make_dir, remove_temporaries_of, write_text
    from gped_nas.search.space_file import parse_space

    if path.exists() and not force:
        raise ConfigError(f"{path}: exists already; choose another name or give --force")
    settings = _dataset_settings(data, label, set_)
    dataset = load(dict(settings))
    with progress() as teller:
        proposal = propose(dataset, ensemble=ensemble, report=teller.report)

    text = space_text(path.stem, settings, proposal)
    parse_space(load_yaml(text, str(path)), str(path))
    make_dir(path.parent)
    remove_temporaries_of(path)
    write_text(path, text)

    facts = describe_data(dataset) | {"memory for inputs": describe_memory(dataset)}
    print_pairs(facts | _describe_teacher(proposal.teacher), Format.table)
    say(f"wrote {path}; next: gped-search run {path}")


def _dataset_settings(
    data: Path | None, label: str | None, set_: list[str] | None
) -> dict[str, Any]:
    """What was found at ``data``, and what was said of it.

    Raises:
        ConfigError: something is said that is no setting of the dataset.
    """
    from gped_nas.data.sources import suggest_settings
    from gped_nas.errors import ConfigError

    given: dict[str, Any] = {}
    for key, value in overrides(set_).items():
        if not key.startswith("dataset."):
            raise ConfigError(
                f"--set {key}: expected a setting of the dataset, dataset.drop=[id] for example; "
                "edit the file that is written for all others"
            )
        given[key.removeprefix("dataset.")] = value
    if label is not None:
        given["label"] = label

    if data is None:
        return {"name": "digits", **given}
    return suggest_settings(data, given)


def _describe_teacher(teacher: Any) -> dict[str, str]:
    """The suggested teacher in words: what it is, how long it takes, whether there is anything."""
    if isinstance(teacher, Path):
        return {"teacher": f"the ensemble of {teacher}, known by its predictions"}

    what = f"{teacher.members} networks {teacher.genotype.family} of {teacher.steps:,} steps"
    nll = f"{teacher.nll:.3g} nats beside {teacher.guess_nll:.3g} of the labels alone"
    if not teacher.learns:
        nll += ": nothing was learned; look at the inputs, or bring more examples"
    return {
        "teacher": f"{what}, some {max(teacher.seconds, 1):.0f} s on one core",
        "quick network": f"NLL at examples left out: {nll}",
    }


@app.command(cls=Verb, rich_help_panel=SEARCH)
def space(
    space: Annotated[
        str | None,
        typer.Argument(
            metavar="SPACE",
            help="File or shipped name; none lists those.",
            autocompletion=complete_space,
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=0, help="Also draw this many genotypes at random.")
    ] = 0,
    format: FormatOption = Format.table,
    set_: Set = None,
    seed: Seed = None,
) -> None:
    """Show the size of a search space and its costs.

    Without a space, the shipped ones are listed.
    """
    from gped_nas.search.shipped import shipped_spaces

    if space is None:
        rows = [{"space": name, "file": str(path)} for name, path in shipped_spaces().items()]
        print_rows(rows, format)
        return

    from gped_nas.api import load_dataset, load_space

    search_space = load_space(space, overrides(set_, seed))
    dataset = load_dataset(search_space)
    search_space.check_reachable(dataset.input_shape, dataset.num_outputs)

    summary = _summarize(search_space, dataset)
    genotypes = _draw(search_space, dataset, sample) if sample else []
    if format is Format.json:
        print_json({**summary, "sample": genotypes} if sample else summary)
        return

    print_pairs(summary, format)
    if genotypes:
        print_rows(genotypes, format)


def _summarize(space: Any, dataset: Any) -> dict[str, Any]:
    from gped_nas.api.labels import label_facts
    from gped_nas.data.facts import describe_inputs
    from gped_nas.data.memory import describe_memory

    low = space.smallest_cost(dataset.input_shape, dataset.num_outputs)
    high = space.largest_cost(dataset.input_shape, dataset.num_outputs)
    num_genotypes: int | str = "infinitely many (a float range)"
    if space.is_finite:
        num_genotypes = space.num_genotypes

    return {
        "name": space.name,
        "dataset": f"{dataset.name}: {dataset.split_text}",
        "inputs": describe_inputs(dataset.input_shape),
        "memory for inputs": describe_memory(dataset),
        "teacher": space.teacher_text,
        "genotypes": num_genotypes,
        **label_facts(space, dataset),
        "objectives": ", ".join(objective.name for objective in space.objectives),
        **{name: f"{low[name]:,.0f} to {high[name]:,.0f}" for name in low},
    }


def _draw(space: Any, dataset: Any, num: int) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from gped_nas.models.costs import genotype_cost
    from gped_nas.search.drawing import draw_at_random

    genotypes = draw_at_random(space, num)
    outputs = space.num_outputs(dataset.num_outputs)
    return [
        {"genotype": str(g), **asdict(genotype_cost(g, dataset.input_shape, outputs))}
        for g in genotypes
    ]
