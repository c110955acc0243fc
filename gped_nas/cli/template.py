"""The text of the search space that ``init`` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gped_nas.api.proposal import Proposal
from gped_nas.config import flow_yaml

_TEXT = """\
# A search space of gped-search. Try:  gped-search run {file}
name: {name}

# The data, split into train, validation (it selects) and test (it is looked at once, at the end).
dataset: {dataset}
{dials}
{teacher}
{where}
views:
{views}

{what}
targets: {targets}

# What is searched. int and float take [low, high]; choices take a list; a plain value is fixed.
students:
  - family: {family}
    genotype:
{ranges}

objectives: [nll, flops, storage_bytes]
# constraints: {{storage_bytes: 20000}}

search: {{n_trials: {n_trials}, students_at_once: 12}}
recipe: {recipe}
{baseline}\
# Beside the chosen student: its form, taught by labels alone. With more seeds the luck of one
# training is in the intervals, and that takes as long again for each.
twins: {{seeds: 1, students: 1}}
"""
_TEACHER = """\
# The Bayesian teacher: {members} networks that begin at other weights each, and are trained to the
# end. They are made once and kept. Students imitate the average of what they predict.
teacher:
  family: {family}
  genotype: {genotype}
{likelihood}  # How far weights may go from zero: their variance times the inputs of their layer.
  # Weak labels need a small one; this was best where quick networks had not been trained.
  prior: {{name: fan_in_gaussian, scale: {scale:g}}}
  method:
    name: deep_ensemble
    chains: 2                       # trained at the same time
    num_samples: {members}                  # networks in all
    steps: {steps}
    lr: {lr:g}
"""
_GIVEN = """\
# The Bayesian teacher: an ensemble of your own, by its predictions. Give it a name, and its costs
# for reports: multiply-adds of one example through all members, bytes of their weights.
teacher:
  predictions: {path}
  name: {name}
  # macs: 185000000
  # storage_bytes: 224000000
"""
_BASELINE = """\
# What the teacher and students are compared with: networks of its form by MAP. Three fresh ones, of
# the prior precision that is best on validation, since the best one itself was lucky there.
baseline: {seeds: 3}
"""
_WHERE = {
    "table": """\
# Where students imitate the teacher: at the training inputs, at the same with noise (in units of
# their standard deviation), and at mixed pairs of them. Unlabeled inputs join those of
# training. There are also the policies disagreement, and pool (unlabeled inputs alone).""",
    "pictures": """\
# Where students imitate the teacher: at the training inputs, and at moved ones. There are flip,
# shift, crop, erase, mixup and cutmix, alone or one after another: take those that keep the class.
# answers: clean shows what the teacher says of the input before it was moved.""",
    "given": """\
# Where students imitate the teacher: where the file has its predictions, which they learn at these
# inputs with noise too (answers: clean).""",
}
_DIALS = """\
# data: {mask: 4, subsample: 200}   # the uncertainty dials: zero a patch of images, drop labels
"""
_LIKELIHOOD = """\
  # The noise of labels, in units of their standard deviation: what quick networks were wrong by
  # at examples that they had not seen.
  likelihood: {{name: gaussian, noise_std: {noise:g}}}
"""
_CLASS = """\
# What students predict: the average probability. Half of what they learn is the labels
# (recipe.label_weight): the class is predicted better so, the teacher's uncertainty worse. Where
# that is what you want, add expected_entropy and set label_weight to 0."""
_CLASSES = """\
# What students predict: the average probability, and the expected entropy (the noise in the data).
# There are also second_moment, utility, variance, mutual_information, dirichlet, interval,
# logit_variance and factors, and quantile with recipe.update: newest."""
_NUMBERS = "# What students predict: the mean and the variance of the label."
_REMARKS = {"group_penalty": "prunes units", "norm": "in training alone"}


def space_text(name: str, dataset: Mapping[str, Any], proposal: Proposal) -> str:
    """The search space as YAML with comments.

    Args:
        name: of the space and of its file.
        dataset: settings of the dataset.
        proposal: everything else.
    """
    return _TEXT.format(
        file=f"{name}.yaml",
        name=flow_yaml(name),
        dataset=flow_yaml(dict(dataset)),
        dials=_DIALS if proposal.is_picture else "",
        family=proposal.family,
        teacher=_teacher_text(proposal),
        where=_WHERE[_kind(proposal)],
        views="\n".join(f"  - {flow_yaml(dict(view))}" for view in proposal.views),
        what=_what(proposal),
        targets=flow_yaml(list(proposal.targets)),
        ranges="\n".join(_range(*item) for item in proposal.students.items()),
        n_trials=proposal.n_trials,
        recipe=flow_yaml(dict(proposal.recipe)),
        baseline="" if isinstance(proposal.teacher, Path) else _BASELINE,
    )


def _what(proposal: Proposal) -> str:
    """What is said of the targets."""
    if not proposal.is_class:
        return _NUMBERS
    return _CLASSES if "expected_entropy" in proposal.targets else _CLASS


def _kind(proposal: Proposal) -> str:
    if proposal.is_picture:
        return "pictures"
    return "given" if isinstance(proposal.teacher, Path) else "table"


def _teacher_text(proposal: Proposal) -> str:
    teacher = proposal.teacher
    if isinstance(teacher, Path):
        return _GIVEN.format(path=flow_yaml(str(teacher)), name=flow_yaml(teacher.stem))

    likelihood = ""
    if teacher.noise_std is not None:
        likelihood = _LIKELIHOOD.format(noise=teacher.noise_std)
    return _TEACHER.format(
        family=teacher.genotype.family,
        genotype=flow_yaml(_short(teacher.genotype.architecture())),
        likelihood=likelihood,
        scale=teacher.scale,
        members=teacher.members,
        steps=teacher.steps,
        lr=teacher.lr,
    )


def _short(values: Mapping[str, Any]) -> dict[str, Any]:
    """One number in place of a list that repeats it, and nothing that is empty."""
    short = {}
    for name, value in values.items():
        if value in ((), 0):
            continue
        entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        short[name] = entries[0] if entries and len(set(entries)) == 1 else entries or value
    return short


def _range(name: str, value: Any) -> str:
    """One line of a genotype's ranges, with a remark where the name does not say what it does."""
    line = f"      {name}: {flow_yaml(value)}"
    return f"{line}  # {_REMARKS[name]}" if name in _REMARKS else line
