"""The model card of an exported student, in Markdown: what it is, costs, is worth, gives up, and
how to load it.

Every text that a user or a file could have chosen passes through ``as_markdown``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gped_nas.distill.student import StudentSpec
from gped_nas.evaluate.measured import by_name, public_name
from gped_nas.export.graph import INPUT, output_names
from gped_nas.export.text import as_markdown
from gped_nas.models.base import genotype_text
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference, StudySnapshot
from gped_nas.targets.base import TARGETS

_MAX_CLASSES = 50
_LOADING = {
    "weights.safetensors": (
        "With this package:",
        'import gped_nas as gn\n\nstudent = gn.load_student(".")\nfound = student.predict(inputs)',
        "`docs/examples/load_student.py` of gped-nas reads the same two files with torch, numpy "
        "and safetensors alone.",
    ),
    "student.pt2": (
        "With torch alone:",
        'import torch\n\nstudent = torch.export.load("student.pt2").module()\nfound = student(inputs)',
        "`inputs` is a float32 tensor; `found` maps the names above to tensors.",
    ),
    "student.onnx": (
        "With an ONNX runtime:",
        'import onnxruntime\n\nsession = onnxruntime.InferenceSession("student.onnx")\n'
        "names = [output.name for output in session.get_outputs()]\n"
        f'found = dict(zip(names, session.run(names, {{"{INPUT}": inputs}})))',
        "`inputs` is a float32 numpy array; `found` maps the names above to arrays.",
    ),
}


def card(
    spec: StudentSpec,
    record: TrialRecord,
    snapshot: StudySnapshot,
    paired_differences: Sequence[PairedDifference] = (),
) -> str:
    """The card.

    Args:
        spec: the exported student's; ``about["files"]`` tells of its files.
        record: its trial, test metrics included where they were made.
        snapshot: its study.
        paired_differences: between this student and the teacher.
    """
    parts = [
        _what(spec, record, snapshot),
        _outputs(spec),
        _costs(record, spec),
        _metrics(record),
        _given_up(record, snapshot, paired_differences),
        _data(spec, snapshot),
        _loading(spec),
        _provenance(spec, record, snapshot),
    ]
    return "\n\n".join(parts) + "\n"


def _what(spec: StudentSpec, record: TrialRecord, snapshot: StudySnapshot) -> str:
    teacher = snapshot.teacher
    return "\n".join(
        [
            f"# Trial {record.trial} of {as_markdown(snapshot.name)}",
            "",
            f"A student network that stands in for {_count(teacher.get('num_samples'))} posterior "
            "samples of "
            f"{as_markdown(str(teacher.get('genotype', 'a teacher')))}, drawn by "
            f"{as_markdown(str(teacher.get('method', 'an unnamed method')))}: it was distilled to "
            "predict their "
            "averages in one pass.",
            "",
            *_list(
                {
                    "genotype": as_markdown(genotype_text(spec.genotype)),
                    "weights on disk": as_markdown(spec.storage_dtype),
                    "state in its study": as_markdown(record.state),
                }
            ),
        ]
    )


def _outputs(spec: StudentSpec) -> str:
    labels = spec.label_normalization
    known = {target.name: target.label for target in spec.targets}
    if labels:
        about = (
            "real numbers; `predictive_normal` is their mean and their variance, in their own unit"
        )
    else:
        shown = [as_markdown(name) for name in spec.class_names[:_MAX_CLASSES]]
        left = len(spec.class_names) - len(shown)
        about = f"{len(spec.class_names)} classes: {', '.join(shown)}{f', and {left} more' if left else ''}"
    rows = [
        [f"`{name}`", as_markdown(known.get(name) or TARGETS[name].label)]
        for name in output_names(spec)
    ]
    return "\n".join(
        [
            "## Inputs and outputs",
            "",
            f"Inputs: float32, shape (N, {', '.join(map(str, spec.input_shape))}), in the data's "
            "own range; they are "
            f"normalized inside, (input - {spec.normalization.mean:g}) / "
            f"{spec.normalization.std:g}. N may be anything "
            "from 1.",
            "",
            f"Labels: {about}.",
            "",
            *_table(["output, (N, G)", "what it is"], rows),
        ]
    )


def _costs(record: TrialRecord, spec: StudentSpec) -> str:
    rows = [[as_markdown(name), _count(value)] for name, value in record.costs.items()]
    files = [
        [
            f"`{name}`",
            _count(one["bytes"]),
            _count(one["weights_bytes"]),
            _count(one["overhead_bytes"]),
        ]
        for name, one in _files(spec).items()
    ]
    return "\n".join(
        [
            "## What it costs",
            "",
            "For one example, from input to raw outputs; `storage_bytes` is the size of "
            "`weights.safetensors`.",
            "",
            *_table(["cost", ""], rows),
            "",
            *_table(["file", "bytes", "of these weights", "container"], files),
        ]
    )


def _metrics(record: TrialRecord) -> str:
    rows = [
        [
            as_markdown(name),
            _number(measured.value),
            _interval(measured.interval),
            _count(measured.n),
        ]
        for name, measured in by_name(record.measures).items()
    ]
    text = "Validation chose this student; what begins with `test_` was measured once, afterwards."
    return "\n".join(
        [
            "## How good it is",
            "",
            text,
            "",
            *_table(["metric", "value", "95 % interval", "examples"], rows),
        ]
    )


def _given_up(
    record: TrialRecord, snapshot: StudySnapshot, paired_differences: Sequence[PairedDifference]
) -> str:
    teacher = next(
        (reference for reference in snapshot.references if reference.name == "teacher"), None
    )
    if teacher is None:
        return "## What it gives up against the teacher\n\nThe teacher was not measured."
    rows = [
        [
            as_markdown(public_name(key)),
            _number(measured.value),
            _number(teacher.measures[key].value),
        ]
        for key, measured in record.measures.items()
        if key in teacher.measures
    ]
    rows += [
        [as_markdown(name), _count(record.costs[name]), _count(teacher.costs[name])]
        for name in record.costs
        if name in teacher.costs
    ]
    paired = [
        [
            as_markdown(f"{one.part} {one.metric}"),
            f"{one.difference:+.4f}",
            _interval(one.interval),
            _count(one.n),
        ]
        for one in paired_differences
    ]
    lines = ["## What it gives up against the teacher", "", _cheaper(record, teacher), ""]
    lines += _table(["", "student", "teacher"], rows)
    if paired:
        header = ["student minus teacher, paired", "difference", "95 % interval", "examples"]
        lines += ["", *_table(header, paired)]
    return "\n".join(lines)


def _cheaper(record: TrialRecord, teacher: Reference) -> str:
    parts = [
        f"{100 * record.costs[name] / teacher.costs[name]:,.3g} % of its {noun}"
        for name, noun in (("macs", "multiply-adds"), ("storage_bytes", "bytes"))
        if name in record.costs and teacher.costs.get(name)
    ]
    return f"Beside the {as_markdown(teacher.label)}, the student has {' and '.join(parts) or 'no costs recorded'}."


def _data(spec: StudentSpec, snapshot: StudySnapshot) -> str:
    dataset = snapshot.config.get("dataset", {})
    name = dataset.get("name", "unnamed") if isinstance(dataset, Mapping) else "unnamed"
    return f"## Data\n\n{as_markdown(str(name))}. {as_markdown(snapshot.split_text)}."


def _loading(spec: StudentSpec) -> str:
    lines = ["## How to load it", ""]
    for name in _files(spec):
        title, code, note = _LOADING[name]
        lines += [title, "", "```python", code, "```", "", note, ""]
    parity = [
        [
            f"`{name}`",
            _number(max(one["parity"]["difference"].values())),
            _count(one["parity"]["inputs"]),
        ]
        for name, one in _files(spec).items()
    ]
    return "\n".join(
        [
            *lines,
            "Largest difference from the live student when exported, in batches of several sizes:",
            "",
            *_table(["file", "difference", "inputs"], parity),
        ]
    )


def _provenance(spec: StudentSpec, record: TrialRecord, snapshot: StudySnapshot) -> str:
    about = {key: value for key, value in spec.about.items() if key != "files"}
    rows = {**about, **snapshot.provenance, "seed of the student": record.extra.get("seed", "")}
    digests = {f"sha256 of {name}": one["sha256"] for name, one in _files(spec).items()}
    told = {
        as_markdown(str(key)): as_markdown(str(value)) for key, value in {**rows, **digests}.items()
    }
    return "\n".join(["## Where it comes from", "", *_list(told)])


def _files(spec: StudentSpec) -> Mapping[str, Any]:
    files: Mapping[str, Any] = spec.about.get("files", {})
    return files


def _list(pairs: Mapping[str, str]) -> list[str]:
    return [f"* {name}: {value}" for name, value in pairs.items()]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.4g} to {bounds[1]:.4g}" if bounds else ""


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,}"
