"""What becomes of a genotype that was drawn: refused, trained, or answered as another trial."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

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
        repeats: genotypes that are answered, or will be once a trial in training is; those too that
            differ from one in training by the storage type alone.
    """

    refused: tuple[Answer, ...]
    train: tuple[Claim, ...]
    repeats: tuple[Claim, ...]


def plan_population(
    space: SearchSpace,
    claims: Iterable[Claim],
    answered: Container[str],
    training: Container[str],
    input_shape: tuple[int, ...],
    num_classes: int,
) -> Plan:
    """What becomes of a population: refused early, trained, or answered as another one.

    Args:
        space: the search space.
        claims: the population.
        answered: genotypes with an answer, by their canonical text.
        training: what is in training, see ``training_of``.
        input_shape, num_classes: of the dataset.
    """
    refused: dict[str, Answer] = {}
    train: dict[str, Claim] = {}
    repeats: list[Claim] = []

    for claim in claims:
        key, trains = key_of(claim), training_of(claim)
        if key in answered or key in refused or trains in training or trains in train:
            repeats.append(claim)
            continue

        refusal = refuse_early(space, claim, input_shape, num_classes)
        if refusal is None:
            train[trains] = claim
        else:
            refused[key] = refusal
    return Plan(tuple(refused.values()), tuple(train.values()), tuple(repeats))


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
    variants = tuple(judge(variant, constraints) for variant in record.variants)
    record = record.replace(variants=())
    if record.state == "failed" or not record.measures:
        return Answer(record)

    values = record.values
    excess = violations(values, constraints)
    broken = [name for name, value in excess.items() if value > 0]
    if record.state != "complete" or not broken:
        return Answer(record, excess, variants)

    reasons = []
    for name in broken:
        expected = describe_constraint(name, constraints[name])
        reasons.append(f"{name} is {values[name]:g}, expected {expected}")
    infeasible = record.replace(state="infeasible", reason="; ".join(reasons))
    return Answer(infeasible, excess, variants)


def give_variants(
    answers: Sequence[Answer], waiting: Sequence[Claim]
) -> tuple[list[Answer], list[Claim]]:
    """Answers in which trials that wait for a variant are that variant, and who waits still.

    Args:
        answers: of students that were trained, with their variants.
        waiting: trials whose genotypes may differ from theirs by the storage type alone.

    Returns:
        The answers, those of trials that waited after those that were trained; and the others.
    """
    claims = {key_of(claim): claim for claim in reversed(waiting)}
    of_trained: list[Answer] = []
    of_waiting: list[Answer] = []
    for answer in answers:
        variants = []
        for variant in answer.variants:
            claim = claims.pop(text_of(variant.record.genotype), None)
            if claim is None:
                variants.append(variant)
            else:
                record = variant.record.replace(trial=claim.number)
                of_waiting.append(replace(variant, record=record))
        of_trained.append(replace(answer, variants=tuple(variants)))

    answered = {answer.record.trial for answer in of_waiting}
    others = [claim for claim in waiting if claim.number not in answered]
    return of_trained + of_waiting, others


def repeat(claim: Claim, first: TrialRecord, *, is_counted: bool = False) -> TrialRecord:
    """The record of a genotype that was answered before.

    One that failed is a duplicate too, without numbers: Optuna then counts it among the worst.
    Failed again, it would teach the sampler nothing, be drawn time after time, and one bad genotype
    would stop the study.

    Args:
        claim: the trial.
        first: the answer.
        is_counted: whether it is a finished trial, as in studies that were begun before repeats
            were none.
    """
    repeat_of = None if is_counted else first.trial
    genotype = claim.genotype.to_json()
    is_same = text_of(genotype) == text_of(first.genotype)
    reason = f"same {'genotype' if is_same else 'training'} as trial {first.trial}"
    if first.state == "failed":
        reason += f", which failed: {first.reason}"
    if first.state == "failed" or not is_same:
        return TrialRecord(claim.number, "duplicate", genotype, reason=reason, repeat_of=repeat_of)
    return first.replace(
        trial=claim.number,
        state="duplicate",
        reason=reason,
        seconds=0.0,
        spec_sha256="",
        variant_of=None,
        repeat_of=repeat_of,
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


def training_of(claim: Claim) -> str:
    """What a trial trains, as canonical text: one for all types that its student is stored in."""
    genotype = claim.genotype
    if claim.dtypes:
        genotype = genotype.replace(storage_dtype="float32")
    return text_of(genotype.to_json())


def text_of(genotype: Mapping[str, object]) -> str:
    """A genotype of a record as canonical text."""
    return canonical_json(dict(genotype))
