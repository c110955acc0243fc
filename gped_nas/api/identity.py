"""What a study is the study of: digests of everything that must not change between its runs."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gped_nas.evaluate.measured import CLEAN
from gped_nas.io import canonical_json, sha256_text
from gped_nas.posterior.imported import BATCH_NORM_EPS
from gped_nas.search.space import SearchSpace, StreamConfig
from gped_nas.spelling import as_digested

_LATER_SETTINGS: tuple[tuple[str, Any], ...] = (
    ("components", 0),
    ("decay_from", 0.0),
    ("centered", False),
    ("label_weight", 0.0),
    ("lr_probe", []),
    ("draw_views", "once"),
    ("stream", "stored"),
    ("certify", 0.0),
)
"""Settings of the recipe that came after the first studies, at the values that these had."""


def identity(space: SearchSpace, stream: str) -> dict[str, str]:
    """Digests of everything that must not change between runs of one study, by part.

    Args:
        space: what is searched.
        stream: the digest of the teacher's stream.
    """
    resolved = space.resolved
    if space.given is None:
        teacher = dict(resolved["teacher"])
        method = _without_paths(teacher.pop("method"))
        for covered in ("trained_on", "module"):  # by the stream's digest
            teacher.pop(covered, None)
    else:  # where its predictions lie is no part of the study
        teacher, method = asdict(space.given), {"name": space.method.name}
        if space.calibration != "none":
            teacher["calibration"] = space.calibration

    # A setting that came later is left out at its default: the digest is then that of before the
    # setting existed, so that older studies go on.
    recipe = dict(resolved["recipe"])
    for name, default in _LATER_SETTINGS:
        if name in recipe and recipe[name] == default:
            del recipe[name]
    # by whatever kernel: a study begun on a GPU goes on without one
    recipe.pop("kernel", None)
    views = resolved["views"]
    if space.stream != StreamConfig():
        views = [resolved["views"], resolved["stream"]]

    parts = {
        "students": resolved["students"],
        "objectives": resolved["objectives"],
        "constraints": resolved["constraints"],
        "views": views,
        "targets": resolved["targets"],
        "recipe": recipe,
        "seed": resolved["seed"],
        "teacher and dataset (the stream)": [teacher, method, stream],
    }
    if resolved["conditions"] != [CLEAN]:  # likewise
        parts["conditions"] = resolved["conditions"]
    if space.outside:  # likewise
        parts["ood"] = [outside.key() for outside in space.outside]
    if space.latency is not None:  # likewise
        parts["latency"] = resolved["latency"]

    digests = {}
    for part, value in parts.items():
        digests[part] = sha256_text(canonical_json(as_digested(value)))[:16]
    return digests


def _without_paths(method: Mapping[str, Any]) -> dict[str, Any]:
    """A method's settings without where imported samples lie, also of those that it reads.

    How their tensors are called is in the stream's digest, and whether they may be at chance is no
    part of the study.
    """
    elsewhere = ("path", "names", "at_chance") if method["name"] == "import" else ("path",)
    settings = {name: value for name, value in method.items() if name not in elsewhere}
    if settings.get("batch_norm_eps") == BATCH_NORM_EPS:  # a later setting at its default
        del settings["batch_norm_eps"]
    if settings.get("start") == "prior":  # likewise
        del settings["start"]
    if isinstance(settings.get("of"), Mapping):
        settings["of"] = _without_paths(settings["of"])
    return settings
