"""Studies that an earlier version of the program made, and what it said about them.

Each archive beside this file unpacks to a home: a space, a study, the cache with its stream,
exports of a student, inputs to ask it at, and ``said.json``: what that version printed for every
verb, and what it printed after going on with a copy of the study. ``make.py`` made them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# Classification of 8 x 8 digits: a constraint that some break, ranges so small that trials repeat.
DIGITS = """\
name: old
dataset: {name: digits}
teacher:
  family: mlp
  genotype: {depth: 1, width: 4}
  method:
    name: sgld
    chains: 2
    num_samples: 2
    step_size: {initial: 2.0e-4}
    burn_in: 100
    thinning: 10
views: [{policy: clean}]
stream: {prediction_dtype: float16}
constraints: {params: 600}
students:
  - family: mlp
    genotype:
      depth: {int: [1, 2]}
      width: {choices: [2, 4, 8]}
      storage_dtype: {choices: [float32, int8]}
search: {n_trials: 8, students_at_once: 4}
recipe: {steps: 60, warmup: 5, optimiser: muon, rungs: 2}
baseline: {steps: 100, precisions: [1.0]}
"""

REGRESSION = """\
name: old
dataset: {name: linear_gaussian, num_examples: 80, num_unlabelled: 20}
teacher:
  family: mlp
  genotype: {depth: 1, width: 4}
  likelihood: {name: gaussian, noise_std: 0.7}
  method: {name: deep_ensemble, num_samples: 3, steps: 100, regulariser: anchor}
views: [{policy: clean}, {policy: pool}]
students:
  - family: mlp
    genotype: {depth: {int: [1, 2]}, width: {choices: [2, 4]}}
objectives: [kl_to_teacher, params]
search: {n_trials: 4, students_at_once: 4}
recipe: {steps: 60, warmup: 5, centred: true}
baseline: {steps: 100, precisions: [1.0]}
"""

# Targets with settings of their own, on predictions that were imported; of no parameters.
IMPORTED = """\
name: old
dataset: {name: npz, path: data.npz}
teacher:
  family: mlp
  genotype: {depth: 1, width: 4}
  method: {name: import, path: ensemble.npz}
views: [{policy: clean}]
targets: [predictive, expected_entropy, second_moment, {name: quantile, levels: [0.1, 0.9]}]
students:
  - family: mlp
    genotype: {depth: {int: [1, 2]}, width: {choices: [2, 4]}}
search: {sampler: grid, n_trials: 3, students_at_once: 4}
recipe: {steps: 60, warmup: 5, optimiser: sgd, lr: 0.05, update: newest}
"""

ONLINE = """\
name: old
dataset: {name: npz, path: data.npz}
teacher:
  family: mlp
  genotype: {depth: 1, width: 4}
  method:
    name: sgld
    chains: 2
    num_samples: 2
    step_size: {initial: 2.0e-4}
    burn_in: 100
    thinning: 10
views: [{policy: clean}]
targets: [predictive, second_moment, variance, utility]
students:
  - family: mlp
    genotype: {depth: {int: [1, 2]}, width: {choices: [2, 4]}}
search: {n_trials: 2, students_at_once: 2}
recipe: {steps: 40, warmup: 5, mode: online, update: newest}
baseline: {steps: 100, precisions: [1.0]}
"""


# Of the version in which files, records and documents carry digests and a study is bound to its
# folder.
SEALED = """\
name: old
dataset: {name: npz, path: data.npz}
teacher:
  family: mlp
  genotype: {depth: 1, width: 4}
  method:
    name: sgld
    chains: 2
    num_samples: 2
    step_size: {initial: 2.0e-4}
    burn_in: 100
    thinning: 10
views: [{policy: clean}]
students:
  - family: mlp
    genotype: {depth: {int: [1, 2]}, width: {choices: [2, 4]}}
search: {n_trials: 3, students_at_once: 3}
recipe: {steps: 40, warmup: 5}
baseline: {steps: 100, precisions: [1.0]}
"""


@dataclass(frozen=True)
class Old:
    """One study of an earlier version.

    Attributes:
        space: its YAML.
        more: number of trials that it is resumed up to.
        formats: what a student of its front was exported to.
        settings: what it needs today to go on; none is part of the study.
    """

    space: str
    more: int
    formats: tuple[str, ...] = ("safetensors",)
    settings: tuple[str, ...] = ()


OLD = {
    "digits": Old(DIGITS, 12, ("safetensors", "pt2", "onnx")),
    "regression": Old(REGRESSION, 6),
    # its ensemble is made of random numbers
    "imported": Old(IMPORTED, 4, settings=("--set", "teacher.method.at_chance=true")),
    "online": Old(ONLINE, 4),
    "sealed": Old(SEALED, 5),
}
NEXT: dict[str, Old] = {}
"""Homes of the version now; made and moved to ``OLD`` before their formats change."""
STUDY = "reports/old"

Call = Callable[..., str]
"""Runs ``gped-search`` with some arguments in the home; its stdout."""


def everything_said(call: Call) -> dict[str, Any]:
    """What the program says about a home, by verb, but for times and for where the home lies."""
    front = json.loads(call("front", STUDY, "--format", "json"))
    chosen = front[0]["trial"]
    status = json.loads(call("status", STUDY, "--format", "json"))
    info = json.loads(call("teacher", "info", "space.yaml", "--format", "json"))

    predictions = {}
    for student in (f"{STUDY}/students/{chosen}", "exports/safetensors"):
        text = call("predict", student, "inputs.npy", "--format", "json")
        predictions[student] = json.loads(text)

    return {
        "front": front,
        "trials": json.loads(call("trials", STUDY, "--format", "json")),
        "show": json.loads(call("show", STUDY, chosen, "--format", "json")),
        "status": {k: v for k, v in status.items() if k != "student seconds"},
        "teacher info": {k: v for k, v in info.items() if k not in ("folder", "bytes on disk")},
        "predict": predictions,
    }
