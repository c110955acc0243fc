"""The search space that ``init`` writes."""

import json
from pathlib import Path

_TEXT = """\
# A search space of gped-search. Try:  gped-search run {file}
name: {name}

# The data, split into train, validation (it selects) and test (it is looked at once, at the end).
dataset: {dataset}
# data: {{mask: 4, subsample: 200}}   # the uncertainty dials: zero a patch of images, drop labels

# The Bayesian teacher, sampled once and kept. Students imitate the average over its samples.
teacher:
  family: mlp
  genotype: {{depth: 2, width: {width}}}
  prior: {{precision: 1.0}}           # 1 / variance of every weight
  method:
    name: sgld
    chains: 2
    num_samples: 100                # posterior samples in all
    step_size: {{initial: {step}}}   # about 0.2 / number of training examples
    burn_in: 1000                   # steps before the first sample of a chain
    thinning: 100                   # steps between samples

# Where students imitate the teacher: at the training inputs, at the same with noise (in units of
# their standard deviation), and at mixed pairs of them. x_pool of an npz joins the training inputs.
# There are also the policies disagreement, and pool (x_pool alone).
views:
  - {{policy: clean}}
  - {{policy: noise, std: 0.1}}
  - {{policy: mixup}}

# What students predict: the average probability, and the expected entropy (the noise in the data).
# There are also second_moment, utility, variance, mutual_information and dirichlet, and quantile
# with recipe.update: newest.
targets: [predictive, expected_entropy]

# What is searched. int and float take [low, high]; choices take a list; a plain value is fixed.
students:
  - family: mlp
    genotype:
      depth: {{int: [1, 3]}}
      width: {{choices: [8, 16, 32, 64, 128]}}
      group_penalty: {{float: [1.0e-5, 1.0e-1], log: true}}     # prunes units
      storage_dtype: {{choices: [float32, float16, int8]}}

objectives: [nll, flops, storage_bytes]
# constraints: {{storage_bytes: 20000}}

search: {{sampler: tpe, n_trials: 48, students_at_once: 12}}
recipe: {{steps: 1500, batch_size: 128, lr: 3.0e-3}}
"""


def space_for(name: str, data: Path | None) -> str:
    """The text of a search space for the digits, or for a user's npz.

    Its step size is set by the number of examples.

    Raises:
        DataError: the npz cannot be used.
    """
    from gped_nas.config import dump_yaml
    from gped_nas.data.base import load
    from gped_nas.data.own import has_channels_first, shape_of_inputs

    settings: dict[str, object] = {"name": "digits"}
    if data is not None:
        settings = {"name": "npz", "path": str(data), "split": "stratified"}
        shape = shape_of_inputs(data)
        settings["normalize"] = "columns" if len(shape) == 2 else "channels"
        if len(shape) == 4:
            is_first = has_channels_first(shape)
            settings["layout"] = "channels_first" if is_first else "channels_last"
    num = len(load(dict(settings)).train)
    pairs = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    return _TEXT.format(
        file=f"{name}.yaml",
        name=dump_yaml({"n": name}).removeprefix("n:").strip(),
        dataset="{" + ", ".join(pairs) + "}",
        width=128,
        step=f"{0.2 / num:.1e}",
    )
