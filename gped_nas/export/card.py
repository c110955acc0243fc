"""The model card of an exported student, in Markdown.

It says what the student is, costs, is worth and gives up, and how to load it. Every text that a
user or a file could have chosen passes through ``as_markdown``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gped_nas.distill.answers import output_names
from gped_nas.distill.student import StudentSpec
from gped_nas.evaluate.measured import by_name, public_name
from gped_nas.export.graph import INPUT
from gped_nas.export.text import as_markdown
from gped_nas.models.labels import genotype_text
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference, StudySnapshot
from gped_nas.search.task_rows import beside_teacher, label_of, shown_rows
from gped_nas.search.teacher_words import NOT_GIVEN, given_costs, teacher_text
from gped_nas.targets.base import TARGETS

_MAX_CLASSES = 50
_LONGEST_VERDICT = 2_000
_LOADING = {
    "weights.safetensors": (
        "With this package:",
        'import gped_nas as gn\n\nstudent = gn.load_student(".")\nfound = student.predict(inputs)',
        "`docs/examples/load_student.py` of gped-nas reads the same two files with torch, numpy "
        "and safetensors alone.",
    ),
    "student.pt2": (
        "With torch alone:",
        'import torch\n\nstudent = torch.export.load("student.pt2").module()\n'
        "found = student(inputs)",
        "`inputs` is a float32 tensor; `found` maps the names above to tensors.",
    ),
    "student.onnx": (
        "With an ONNX runtime:",
        'import onnxruntime\n\nsession = onnxruntime.InferenceSession("student.onnx")\n'
        "names = [output.name for output in session.get_outputs()]\n"
        f'found = dict(zip(names, session.run(names, {{"{INPUT}": inputs}})))',
        "`inputs` is a float32 numpy array; `found` maps the names above to arrays. The file says "
        "itself what classes, layout, normalization and version it is of: "
        "`session.get_modelmeta().custom_metadata_map`.",
    ),
}


def card(
    spec: StudentSpec,
    record: TrialRecord,
    snapshot: StudySnapshot,
    paired_differences: Sequence[PairedDifference] = (),
    *,
    verdict: str = "",
) -> str:
    """The card.

    Args:
        spec: the exported student's; ``about["files"]`` tells of its files.
        record: its trial, test metrics included where they were made.
        snapshot: its study.
        paired_differences: between this student and others.
        verdict: what is to be said of the student, whole sentences.
    """
    parts = [
        _summary(spec, record, snapshot, verdict),
        _outputs(spec),
        _costs(record, spec),
        _metrics(record),
        *_over_seeds(record, snapshot),
        *_in_int8(spec),
        _sacrifice(record, snapshot, paired_differences),
        *_asked(record, snapshot),
        _data(spec, snapshot),
        _loading(spec),
        _provenance(spec, record, snapshot),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(spec: StudentSpec, record: TrialRecord, snapshot: StudySnapshot, verdict: str) -> str:
    text = (
        f"A student network that stands in for {as_markdown(teacher_text(snapshot.teacher))}: "
        "it was distilled to predict their averages in one pass."
    )
    facts = {
        "genotype": as_markdown(genotype_text(spec.genotype)),
        "weights on disk": as_markdown(spec.storage_dtype),
        "state in its study": as_markdown(record.state),
    }

    title = f"# Trial {record.trial} of {as_markdown(snapshot.name)}"
    paragraphs = [text, as_markdown(verdict, limit=_LONGEST_VERDICT)] if verdict else [text]
    return "\n\n".join([title, *paragraphs, "\n".join(_list(facts))])


def _outputs(spec: StudentSpec) -> str:
    shape = ", ".join(map(str, spec.input_shape))
    inputs_text = (
        f"Inputs: float32, shape (N, {shape}), in the data's own range; they are normalized "
        f"inside, {spec.normalization.describe()}. N may be anything from 1."
    )

    lines = [inputs_text, *_layout_example(spec)]
    own_labels = {target.name: target.label for target in spec.targets}
    rows = []
    for name in output_names(spec):
        label = own_labels.get(name) or TARGETS[name].label
        rows.append([f"`{name}`", as_markdown(label)])

    return "\n".join(
        [
            "## Inputs and outputs",
            "",
            *lines,
            "",
            f"Labels: {_labels(spec)}.",
            "",
            *_table(["output, (N, G)", "what it is"], rows),
        ]
    )


def _layout_example(spec: StudentSpec) -> list[str]:
    """How pictures with their channels last become inputs; nothing of a table."""
    if len(spec.input_shape) != 3:
        return []
    channels, height, width = spec.input_shape
    return [
        "",
        f"That is channels first. From pictures (N, {height}, {width}, {channels}) with their "
        "channels last, of bytes or other numbers:",
        "",
        "```python",
        f"pictures = pictures.reshape(-1, {height}, {width}, {channels})",
        'inputs = pictures.transpose(0, 3, 1, 2).astype("float32")',
        "```",
    ]


def _labels(spec: StudentSpec) -> str:
    if spec.label_normalization:
        return (
            "real numbers; `predictive_normal` is their mean and their variance, in their own unit"
        )

    num_classes = len(spec.class_names)
    names = [as_markdown(name) for name in spec.class_names[:_MAX_CLASSES]]
    text = f"{num_classes} classes: {', '.join(names)}"
    if num_classes > len(names):
        text += f", and {num_classes - len(names)} more"
    return text


def _costs(record: TrialRecord, spec: StudentSpec) -> str:
    costs = [[as_markdown(name), _count(value)] for name, value in record.costs.items()]
    files = []
    for name, facts in _files(spec).items():
        sizes = [facts["bytes"], facts["weights_bytes"], facts["overhead_bytes"]]
        files.append([f"`{name}`", *map(_count, sizes)])

    return "\n".join(
        [
            "## What it costs",
            "",
            "For one example, from input to raw outputs; `storage_bytes` is the size of "
            "`weights.safetensors`.",
            "",
            *_table(["cost", ""], costs),
            "",
            *_table(["file", "bytes", "of these weights", "container"], files),
        ]
    )


def _metrics(record: TrialRecord) -> str:
    rows = []
    for name, measured in by_name(record.measures).items():
        interval = _interval(measured.interval, measured.why)
        rows.append([as_markdown(name), _number(measured.value), interval, _count(measured.n)])

    text = "Validation chose this student; what begins with `test_` was measured once, afterwards."
    table = _table(["metric", "value", "95 % interval", "examples"], rows)
    return "\n".join(["## How good it is", "", text, "", *table])


def _over_seeds(record: TrialRecord, snapshot: StudySnapshot) -> list[str]:
    """What its genotype is worth over fresh seeds; nothing of who is no finalist."""
    finalist = None if snapshot.finalists is None else snapshot.finalists.of(record.trial)
    if finalist is None or not finalist.metrics:
        return []

    rows = []
    for name, measured in by_name(finalist.measures).items():
        interval = _interval(measured.interval, measured.why)
        rows.append([as_markdown(name), _number(measured.value), interval])
    text = (
        f"Means over {finalist.num_seeds} fresh trainings of the genotype, none of them this "
        "student, with intervals over seeds and validation examples. They are not flattered by the "
        "choice, as this student's own figures are."
    )
    table = _table(["metric", "mean", "95 % interval"], rows)
    return ["\n".join(["## How good its genotype is", "", text, "", *table])]


def _in_int8(spec: StudentSpec) -> list[str]:
    """What a graph that computes in int8 is worth beside float32; nothing where there is none."""
    facts = _files(spec).get("student.onnx", {})
    if "compute" not in facts:
        return []

    validation, latency = facts["validation"], facts["latency"]
    rows = []
    for name, value in validation["int8"].items():
        before = validation["float32"][name]
        rows.append([f"{as_markdown(name)}, validation", _number(value), _number(before)])
    for batch, times in latency.items():
        if batch != "machine":
            values = [_number(times[kind]["latency_ms"]) for kind in ("int8", "float32")]
            rows.append([f"ms a call, {batch.replace('_', ' ')}", *values])

    processor = as_markdown(str(latency["machine"].get("processor", "")))
    text = (
        "`student.onnx` computes its products in int8 (QDQ): the numbers between its layers are "
        "rounded too, in ranges that training inputs showed. All other figures of this card are "
        f"of float32. Measured on {_count(validation['n'])} validation examples; timed on "
        f"{processor}, one thread."
    )
    table = _table(["", "int8", "float32"], rows)
    return ["\n".join(["## In int8", "", text, "", *table])]


def _sacrifice(
    record: TrialRecord, snapshot: StudySnapshot, paired_differences: Sequence[PairedDifference]
) -> str:
    teachers = [reference for reference in snapshot.references if reference.name == "teacher"]
    if not teachers:
        return "## What it gives up against the teacher\n\nThe teacher was not measured."
    teacher = teachers[0]

    rows = []
    for key, measured in record.measures.items():
        if key in teacher.measures:
            teacher_value = teacher.measures[key].value
            rows.append(
                [as_markdown(public_name(key)), _number(measured.value), _number(teacher_value)]
            )
    for name, cost in record.costs.items():
        if name in teacher.costs:
            rows.append([as_markdown(name), _count(cost), _count(teacher.costs[name])])

    lines = ["## What it gives up against the teacher", ""]
    lines += [_cheaper(record, teacher), ""]
    costs_given = given_costs(snapshot.teacher)
    if NOT_GIVEN in costs_given.values():
        costs = ", ".join(f"{name} {value}" for name, value in costs_given.items())
        lines += [f"The teacher's costs, all members together: {costs}.", ""]
    lines += _table(["", "student", "teacher"], rows)
    if paired_differences:
        header = ["student minus another, paired", "difference", "95 % interval", "examples"]
        lines += ["", *_table(header, map(_paired_row, paired_differences))]
    return "\n".join(lines)


def _paired_row(paired: PairedDifference) -> list[str]:
    name = as_markdown(f"{paired.part} {paired.metric}, {paired.second}")
    return [
        name,
        f"{paired.difference:+.4f}",
        _interval(paired.interval, paired.why),
        _count(paired.n),
    ]


def _cheaper(record: TrialRecord, teacher: Reference) -> str:
    parts = []
    for name, noun in (("macs", "multiply-adds"), ("storage_bytes", "bytes")):
        if name in record.costs and teacher.costs.get(name):
            percent = 100 * record.costs[name] / teacher.costs[name]
            parts.append(f"{percent:,.3g} % of its {noun}")

    shares = " and ".join(parts) or "no costs recorded"
    return f"Beside the {as_markdown(teacher.label)}, the student has {shares}."


def _asked(record: TrialRecord, snapshot: StudySnapshot) -> list[str]:
    """What tasks measured of the student, beside the teacher; nothing where none did."""
    rows = []
    for row, of_teacher in beside_teacher(shown_rows(snapshot), record.trial):
        interval = None if row["low"] is None else (row["low"], row["high"])
        teacher_value = None if of_teacher is None else of_teacher["value"]
        rows.append(
            [
                as_markdown(f"{label_of(row, snapshot)}, {row['part']}"),
                _number(row["value"]),
                _interval(interval, ""),
                "" if of_teacher is None else _number(teacher_value),
                _count(row["n"]),
            ]
        )
    if not rows:
        return []

    header = ["measure", "student", "95 % interval", "teacher", "n"]
    text = "Measured by `gped-search evaluate`."
    return ["\n".join(["## What else it was asked", "", text, "", *_table(header, rows)])]


def _data(spec: StudentSpec, snapshot: StudySnapshot) -> str:
    dataset = snapshot.config.get("dataset", {})
    name = dataset.get("name", "unnamed") if isinstance(dataset, Mapping) else "unnamed"
    return f"## Data\n\n{as_markdown(str(name))}. {as_markdown(snapshot.split_text)}."


def _loading(spec: StudentSpec) -> str:
    lines = ["## How to load it", ""]
    rows = []
    for name, facts in _files(spec).items():
        title, code, note = _LOADING[name]
        if facts.get("inputs") == "bytes":
            note = note.replace("float32", "uint8", 1).replace(";", _of_bytes(spec), 1)
        lines += [title, "", "```python", code, "```", "", note, ""]

        parity = facts["parity"]
        largest = max(parity["difference"].values())
        rows.append([f"`{name}`", _number(largest), _count(parity["inputs"])])

    return "\n".join(
        [
            *lines,
            "Largest difference from the live student when exported, in batches of several sizes:",
            "",
            *_table(["file", "difference", "inputs"], rows),
        ]
    )


def _of_bytes(spec: StudentSpec) -> str:
    channels, height, width = spec.input_shape
    return f" of shape (N, {height}, {width}, {channels}), pictures with their channels last;"


def _provenance(spec: StudentSpec, record: TrialRecord, snapshot: StudySnapshot) -> str:
    facts = {key: value for key, value in spec.about.items() if key != "files"}
    facts |= {**snapshot.provenance, "seed of the student": record.extra.get("seed", "")}
    for name, file in _files(spec).items():
        facts[f"sha256 of {name}"] = file["sha256"]

    texts = {as_markdown(str(key)): as_markdown(str(value)) for key, value in facts.items()}
    return "\n".join(["## Where it comes from", "", *_list(texts)])


def _files(spec: StudentSpec) -> Mapping[str, Any]:
    files: Mapping[str, Any] = spec.about.get("files", {})
    return files


def _list(pairs: Mapping[str, str]) -> list[str]:
    return [f"* {name}: {value}" for name, value in pairs.items()]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _interval(bounds: Sequence[float] | None, why: str) -> str:
    if bounds:
        return f"{bounds[0]:.4g} to {bounds[1]:.4g}"
    return f"none: {as_markdown(why)}" if why else ""


def _count(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if float(value).is_integer() else f"{value:.4g}"
