"""What becomes of a genotype that was drawn: refused, trained, or answered as another trial."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass

from gped_nas.io import canonical_json
from gped_nas.models.costs import smallest_cost
from gped_nas.search.answers import Answer
from gped_nas.search.ledger import Claim
from gped_nas.search.objectives import describe_constraint, violations
from gped_nas.search.record import TrialRecord
from gped_nas.search.space import SearchSpace
from gped_nas.search.trials import is_its_fault


@dataclass(frozen=True)
class Plan:
    """What becomes of a population.

    Attributes:
        refused: those that need no training, with their answers.
        train: those to train.
        repeats: genotypes that are answered, or will be once a trial in training is.
    """

    refused: tuple[Answer, ...]
    train: tuple[Claim, ...]
    repeats: tuple[Claim, ...]


def plan_population(
    space: SearchSpace,
    claims: Iterable[Claim],
    known: Container[str],
    input_shape: tuple[int, ...],
    num_classes: int,
) -> Plan:
    """What becomes of a population: refused early, trained, or answered as another one.

    Args:
        space: the search space.
        claims: the population.
        known: genotypes that are answered or in training, by their canonical text.
        input_shape, num_classes: of the dataset.
    """
    refused: list[Answer] = []
    train: dict[str, Claim] = {}
    repeats: list[Claim] = []

    for claim in claims:
        key = key_of(claim)
        refusal = refuse_early(space, claim, input_shape, num_classes)
        if refusal is not None:
            refused.append(refusal)
        elif key in known or key in train:
            repeats.append(claim)
        else:
            train[key] = claim
    return Plan(tuple(refused), tuple(train.values()), tuple(repeats))


def refuse_early(
    space: SearchSpace, claim: Claim, input_shape: tuple[int, ...], num_classes: int
) -> Answer | None:
    """An answer, if even the smallest network this genotype could become is too large."""
    costs = asdict(smallest_cost(claim.genotype, input_shape, space.num_outputs(num_classes)))
    bounds = {name: bound for name, bound in space.constraints.items() if name in costs}
    excess = violations(costs, bounds)
    if all(value <= 0 for value in excess.values()):
        return None

    reasons = []
    for name, value in excess.items():
        if value > 0:
            reasons.append(
                f"even its smallest network has {name} {costs[name]}, expected "
                f"{describe_constraint(name, bounds[name])}"
            )
    genotype = claim.genotype.to_json()
    record = TrialRecord(claim.number, "infeasible", genotype, reason="; ".join(reasons))
    return Answer(record, excess)


def judge(record: TrialRecord, constraints: Mapping[str, float]) -> Answer:
    """A record with what it breaks.

    A complete one becomes infeasible if the network that is left breaks a constraint.
    """
    if record.state == "failed" or not record.measures:
        return Answer(record)

    values = record.values
    excess = violations(values, constraints)
    broken = [name for name, value in excess.items() if value > 0]
    if record.state != "complete" or not broken:
        return Answer(record, excess)

    reasons = []
    for name in broken:
        expected = describe_constraint(name, constraints[name])
        reasons.append(f"{name} is {values[name]:g}, expected {expected}")
    return Answer(record.replace(state="infeasible", reason="; ".join(reasons)), excess)


def repeat(claim: Claim, first: TrialRecord) -> TrialRecord:
    """The record of a genotype that was answered before.

    One that failed is a duplicate too, without numbers: Optuna then counts it among the worst.
    Failed again, it would teach the sampler nothing, be drawn time after time, and one bad genotype
    would stop the study.
    """
    reason = f"same genotype as trial {first.trial}"
    if first.state == "failed":
        reason += f", which failed: {first.reason}"
        genotype = claim.genotype.to_json()
        return TrialRecord(claim.number, "duplicate", genotype, reason=reason)
    return first.replace(
        trial=claim.number, state="duplicate", reason=reason, seconds=0.0, spec_sha256=""
    )


def is_answer(record: TrialRecord) -> bool:
    """Whether a record says what its genotype is worth, so that no other trial need train it."""
    if record.state == "failed":
        return is_its_fault(record.reason) and bool(record.genotype)
    return record.state in ("complete", "infeasible") and bool(record.genotype)


def failed(claim: Claim, reason: str) -> TrialRecord:
    """The record of a trial that failed."""
    return TrialRecord(claim.number, "failed", claim.genotype.to_json(), reason=reason)


def key_of(claim: Claim) -> str:
    """A trial's genotype as canonical text."""
    return text_of(claim.genotype.to_json())


def text_of(genotype: Mapping[str, object]) -> str:
    """A genotype of a record as canonical text."""
    return canonical_json(dict(genotype))
