"""What the sampler ``costs_known`` proposes, by records of students that were never trained."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from gped_nas.errors import ConfigError
from gped_nas.evaluate.measured import from_public
from gped_nas.models.base import Genotype
from gped_nas.models.costs import genotype_cost
from gped_nas.search.document import Box
from gped_nas.search.proposing.candidates import Candidates, key_of, random_genotypes
from gped_nas.search.proposing.choosing import choose_sampler, with_chosen_sampler
from gped_nas.search.proposing.costs import CostModel, DrawnCosts, Trained
from gped_nas.search.proposing.costs_known import propose, start_up
from gped_nas.search.proposing.facts import Facts
from gped_nas.search.proposing.features import Features
from gped_nas.search.proposing.history import trainings_of
from gped_nas.search.proposing.models import Models, num_better
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Bound, Region
from gped_nas.search.space_file import load_space, parse_space
from gped_nas.search.trials import INTERRUPTED
from gped_nas.search.volume import coverage
from tests.search.fakes import CLASSES, SHAPE, make_space

OUTPUTS = CLASSES + 1
PRUNED = Path(__file__).parent / "pruned_digits.json"
DEEP = {
    "depth": {"int": [1, 3]},
    "width": {"choices": [4, 8, 16, 32]},
    "group_penalty": {"float": [1e-5, 1e-1], "log": True},
    "storage_dtype": {"choices": ["float32", "int8"]},
}
PER_LAYER = {
    "depth": {"int": [1, 2]},
    "width": [{"int": [2, 64], "log": True}, {"int": [2, 20], "step": 3}],
    "label_weight": {"choices": [0.0, 0.5]},
    "activation": {"choices": ["relu", "tanh"]},
}
FINITE = {"depth": 1, "width": {"int": [2, 10]}, "storage_dtype": DEEP["storage_dtype"]}
VERY_WIDE = {"depth": {"int": [15, 16]}, "width": [{"choices": [4, 8]}] * 16}
COSTS = ("nll", "flops", "storage_bytes")


def space_of(*genotypes, objectives=COSTS, constraints=None, **search):
    """A space of one family or of several."""
    space = make_space(DEEP, objectives, constraints, sampler="costs_known", **search)
    if not genotypes:
        return space
    students = [{"family": family, "genotype": genotype} for family, genotype in genotypes]
    return parse_space({**space.resolved, "students": students}, "fake.yaml")


def left(genotype):
    """The network that pruning leaves of a genotype here: the stronger the penalty, the less."""
    share = 1 / (1 + 30 * genotype["group_penalty"])
    widths = [max(1, round(width * share)) for width in genotype["width"]]
    return genotype.replace(width=widths)


def record_of(number, genotype, *, state="complete", **metrics):
    """A record whose NLL falls with the network that is left."""
    costs = asdict(genotype_cost(left(genotype), SHAPE, OUTPUTS))
    nll = min(0.05 + 8 / costs["macs"], 1.1)
    metrics = {"nll": nll, "accuracy": 1 - nll / 2, **metrics}
    measures = from_public(metrics, {}, dict.fromkeys(metrics, 5)) if state == "complete" else {}
    return TrialRecord(number, state, genotype.to_json(), measures=measures, costs=costs)


def facts_for(space, region=None):
    small, large = space.smallest_cost(SHAPE, CLASSES), space.largest_cost(SHAPE, CLASSES)
    ends = {name: (small[name], large[name]) for name in small}
    declared = {"nll": 1.1, "accuracy": 1 / 3}
    return Facts(
        SHAPE, OUTPUTS, region, {**ends, "nll": (0.0, 1.1), "accuracy": (1, 1 / 3)}, declared
    )


def history(space, num, seed=1):
    drawn = dict.fromkeys(random_genotypes(space, 4 * num, seed))
    return [record_of(i, genotype) for i, genotype in enumerate(list(drawn)[:num])]


# -- start-up, repeats, ends


def test_the_first_genotypes_are_random_and_few():
    space = space_of(students_at_once=12)
    assert start_up(space) == 6 and start_up(space_of(students_at_once=4)) == 3
    assert start_up(space_of(students_at_once=48)) == 24 and start_up(space_of(start_up=5)) == 5

    facts = facts_for(space)
    first = propose(space, [], 12, seed=0, facts=facts)
    assert len(first) == 6 and propose(space, [], 12, seed=0, facts=facts) == first
    assert propose(space, [], 12, seed=1, facts=facts) != first
    assert len(propose(space, history(space, 4), 12, seed=0, facts=facts)) == 2
    assert len(propose(space, history(space, 6), 12, seed=0, facts=facts)) == 12


@pytest.mark.parametrize(
    "families",
    [
        (),
        (("mlp", PER_LAYER),),
        (("mlp", DEEP), ("cnn", {"depth": 1, "width": {"int": [2, 9]}, "kernel": 1})),
    ],
)
def test_proposals_are_new_genotypes_of_the_space(families):
    space = space_of(*families)
    records = history(space, 10)
    proposed = propose(space, records, 6, seed=3, facts=facts_for(space))
    genotypes = [space.genotype_of(params) for params in proposed]
    trained = {key_of(record.genotype, space) for record in records}
    assert len({key_of(genotype.to_json(), space) for genotype in genotypes}) == 6
    assert all(key_of(genotype.to_json(), space) not in trained for genotype in genotypes)
    assert propose(space, list(records), 6, seed=3, facts=facts_for(space)) == proposed


def test_a_finite_space_is_exhausted_with_its_trainings():
    """Five widths in two storage types are five trainings, in the type of the fewest bytes."""
    genotype = {"depth": 1, "width": {"int": [2, 6]}, "storage_dtype": DEEP["storage_dtype"]}
    space = space_of(("mlp", genotype))
    records = []
    for _ in range(4):
        for params in propose(space, records, 3, seed=len(records), facts=facts_for(space)):
            assert params["storage_dtype"] == "int8"
            records.append(record_of(len(records), space.genotype_of(params)))
    assert sorted(record.genotype["width"][0] for record in records) == [2, 3, 4, 5, 6]

    single = space_of(("mlp", genotype), every_dtype=False)
    more = propose(single, records, 9, seed=0, facts=facts_for(single))
    assert [params["storage_dtype"] for params in more] == ["float32"] * 5


def test_what_was_interrupted_is_drawn_again_and_what_failed_is_not():
    space = space_of(("mlp", {"depth": 1, "width": {"int": [2, 3]}}), start_up=5)
    interrupted = record_of(0, Genotype("mlp", depth=1, width=2), state="failed")
    for reason, num in ((INTERRUPTED, 2), ("diverged", 1)):
        records = [interrupted.replace(reason=reason)]
        assert len(propose(space, records, 5, seed=0, facts=facts_for(space))) == num


# -- what is wanted


def params_of(pool):
    params = []
    for record in pool:
        values = {name: record.genotype[name] for name in ("depth", "group_penalty")}
        dtype = record.genotype["storage_dtype"]
        params.append({**values, "width": record.genotype["width"][0], "storage_dtype": dtype})
    return params


def test_proposals_find_the_front_sooner_than_random_draws():
    """Of a pool of 150, what 12 proposals add against the mean of 60 random orders."""
    space = space_of(students_at_once=6)
    facts = facts_for(space)
    pool = history(space, 150, seed=4)
    by_key = {key_of(record.genotype, space): record for record in pool}
    params = params_of(pool)

    chosen = []
    while len(chosen) < 15:
        for taken in propose(space, chosen, 6, seed=len(chosen), facts=facts, among=params):
            chosen.append(by_key[key_of(space.genotype_of(taken).to_json(), space)])

    ends = [facts.ends[name] for name in COSTS]
    box = Box(best=tuple(best for best, _ in ends), worst=tuple(worst for _, worst in ends))

    def volume(records):
        return coverage(records, space.objectives, box, None).history[-1]

    orders = [np.random.default_rng(seed).permutation(150)[:15] for seed in range(60)]
    at_random = [volume([pool[i] for i in order]) for order in orders]
    assert volume(chosen) > np.quantile(at_random, 0.95)


def test_what_another_study_found_teaches_and_is_no_training_of_this_one():
    space = space_of(students_at_once=6)
    facts = facts_for(space)
    earlier = [record.replace(trial=-1 - i) for i, record in enumerate(history(space, 60, seed=4))]
    told = replace(facts, earlier=tuple(earlier))

    ends = [facts.ends[name] for name in COSTS]
    box = Box(best=tuple(best for best, _ in ends), worst=tuple(worst for _, worst in ends))

    def volume(facts, seed):
        proposed = propose(space, [], 3, seed=seed, facts=facts)
        records = [record_of(i, space.genotype_of(params)) for i, params in enumerate(proposed)]
        return coverage(records, space.objectives, box, None).history[-1]

    # what is on the other study's front is still to be had here, so it is not kept away from
    gains = [volume(told, seed) - volume(facts, seed) for seed in range(8)]
    assert np.mean(gains) > 0 and min(volume(told, seed) for seed in range(8)) > np.mean(
        [volume(facts, seed) for seed in range(8)]
    )
    assert len(propose(space, [], 12, seed=0, facts=told)) == 12, "it spares the start"
    keys = {key_of(record.genotype, space) for record in earlier}
    again = propose(space, [], 3, seed=0, facts=told, among=params_of(earlier))
    assert {key_of(space.genotype_of(p).to_json(), space) for p in again} <= keys and len(
        again
    ) == 3


def test_what_is_in_training_is_believed_and_not_proposed():
    space = space_of()
    records = history(space, 12)
    facts = facts_for(space)
    (best,) = propose(space, records, 1, seed=0, facts=facts)
    running = record_of(12, space.genotype_of(best), state="running")
    first, second = propose(space, records, 2, seed=0, facts=facts)
    assert first == best
    (following,) = propose(space, [*records, running], 1, seed=0, facts=facts)
    assert following == second


def test_several_quality_objectives_and_a_bound_on_a_metric():
    space = space_of(
        ("mlp", {**DEEP, "width": {"int": [2, 64], "log": True}}),
        objectives=("nll", "accuracy", "params"),
        constraints={"accuracy": 0.9},
    )
    records = history(space, 25)
    proposed = propose(space, records, 6, seed=0, facts=facts_for(space))
    accuracies = [
        record_of(0, space.genotype_of(params)).metrics["accuracy"] for params in proposed
    ]
    random = [record.metrics["accuracy"] for record in records]
    assert np.mean(np.array(accuracies) >= 0.9) >= np.mean(np.array(random) >= 0.9)
    assert min(accuracies) > 0.8


def test_what_breaks_a_bound_on_a_cost_is_hardly_proposed():
    space = space_of(constraints={"macs": 200})
    proposed = propose(space, history(space, 25), 6, seed=0, facts=facts_for(space))
    macs = [record_of(0, space.genotype_of(params)).costs["macs"] for params in proposed]
    assert np.median(macs) <= 200


def test_only_students_inside_the_region_are_on_its_front():
    space = space_of()
    region = Region(keep=0.9, bounds=(Bound("nll", "minimize", 0.2),))
    records = history(space, 20)
    models = Models(space, facts_for(space, region), trainings_of(records, space))
    for training in models.trainings:
        assert models.counts(training) == (training.values["nll"] <= 0.2)


# -- parts


def test_a_training_speaks_by_its_cheapest_storage_type():
    space = space_of()
    genotype = Genotype("mlp", depth=1, width=16, group_penalty=1e-3, storage_dtype="float32")
    small = genotype.replace(storage_dtype="int8")
    records = [record_of(0, genotype), record_of(1, small, nll=0.3)]
    for order in (records, records[::-1]):
        (training,) = trainings_of(order, space)
        assert training.values["nll"] == 0.3
        assert training.values["storage_bytes"] == records[1].costs["storage_bytes"]

    drawn = DrawnCosts(space, facts_for(space)).of(genotype)
    exact = asdict(genotype_cost(small, SHAPE, OUTPUTS))
    assert drawn == {name: float(exact[name]) for name in drawn}


def test_costs_left_are_predicted_as_they_were_measured():
    """Of 80 students of digits_mlp, 40 predict what pruning left of the others.

    Their costs are real ones: see the file. Drawn costs are off by the share that was pruned.
    """
    space = load_space("digits_mlp")
    rows = json.loads(PRUNED.read_text(encoding="utf-8"))["students"]
    genotypes, trained = [], []
    for depth, width, penalty, macs, num_bytes in rows:
        genotype = Genotype(
            "mlp", depth=depth, width=width, group_penalty=penalty, storage_dtype="int8"
        )
        genotypes.append(genotype)
        trained.append(Trained(genotype, {"macs": macs, "storage_bytes": num_bytes}))

    drawn = DrawnCosts(space, Facts((1, 8, 8), space.num_outputs(10)))
    features = Features(random_genotypes(space, 256, 0))
    model = CostModel(("macs", "storage_bytes"), trained[:40], features, drawn)
    for name in ("macs", "storage_bytes"):
        truth = np.log10([student.costs[name] for student in trained[40:]])
        most = np.log10([drawn.of(genotype)[name] for genotype in genotypes[40:]])
        assert (truth <= most + 1e-9).all()

        mean, sd = model.of(genotypes[40:])[name]
        blind_error, error = np.abs(most - truth).mean(), np.abs(mean - truth).mean()
        assert error < 0.5 * blind_error
        assert (mean <= most + 1e-12).all() and (sd > 0).all()


def test_costs_without_pruning_are_exact():
    space = space_of(("mlp", {"depth": 1, "width": {"int": [2, 9]}}))
    genotypes = [Genotype("mlp", depth=1, width=width) for width in (2, 5, 9)]
    features = Features(random_genotypes(space, 64, 0))
    model = CostModel(("macs",), [], features, DrawnCosts(space, facts_for(space)))
    mean, sd = model.of(genotypes)["macs"]
    exact = [genotype_cost(genotype, SHAPE, OUTPUTS).macs for genotype in genotypes]
    np.testing.assert_allclose(10**mean, exact, rtol=1e-12)
    assert (sd == 0).all()


def test_costs_of_a_budget_are_known():
    ranges = {"depth": 1, "width": {"int": [2, 9]}, "prune_to": {"macs": {"int": [20, 60]}}}
    space = space_of(("mlp", ranges))
    whole = Genotype("mlp", depth=1, width=9)
    costs = genotype_cost(whole, SHAPE, OUTPUTS)
    genotypes = [
        whole.replace(prune_to_macs=30),
        whole.replace(prune_to_flops=50),
        whole.replace(prune_to_macs=costs.macs),
        whole.replace(prune_to_float32_bytes=400),
    ]
    features = Features(random_genotypes(space, 64, 0))
    model = CostModel(
        ("macs", "params", "storage_bytes"), [], features, DrawnCosts(space, facts_for(space))
    )
    expected = model.of(genotypes)
    macs, sd = expected["macs"]
    np.testing.assert_allclose(10 ** macs[:3], [30, 25, costs.macs], rtol=1e-12)
    assert (sd[:3] == 0).all()
    np.testing.assert_allclose(10 ** expected["params"][0][2], costs.params, rtol=1e-12)
    np.testing.assert_allclose(10 ** expected["storage_bytes"][0][3], 400, rtol=1e-12)


def test_inputs_of_a_genotype_say_each_thing_once():
    """The width of all layers is one input; words are one each; the storage type is none."""
    sample = random_genotypes(space_of(), 256, 0)
    assert sorted(Features(sample).places) == [("depth", -1), ("group_penalty", -1), ("width", 0)]

    sample = random_genotypes(space_of(("mlp", PER_LAYER)), 256, 0)
    features = Features(sample)
    places = [place for place, _ in features.places]
    assert sorted(places) == ["activation"] * 2 + ["depth", "label_weight", "width", "width"]
    inputs = features.of(sample)
    np.testing.assert_allclose(inputs[:, places.index("depth")].std(), 1.0)
    is_shallow = np.array([genotype["depth"] == 1 for genotype in sample])
    second = [i for i, place in enumerate(features.places) if place == ("width", 1)]
    assert (inputs[is_shallow, second[0]] == 0).all()


def test_candidates_are_of_the_ranges():
    space = space_of(("mlp", PER_LAYER))
    candidates = Candidates(space, [], np.random.default_rng(0))
    drawn = candidates.drawn(200)
    varied = candidates.varied([candidate.params for candidate in drawn[:5]], 50)
    assert len(drawn) == 200 and varied
    for candidate in (*drawn, *varied):
        assert candidate.genotype == space.genotype_of(candidate.params)
        assert 2 <= candidate.params["width_0"] <= 64
        assert candidate.params.get("width_1", 2) in range(2, 21, 3)


def test_domination_is_counted():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert num_better(points).tolist() == [0, 1, 2, 2]


def test_many_trainings_are_modelled_by_those_near_the_front_and_some_others():
    space = space_of()
    records = history(space, 600, seed=2)
    models = Models(space, facts_for(space), trainings_of(records, space))
    assert len(models.trainings) == 384
    points = [np.concatenate(models.point(each)) for each in trainings_of(records, space)]
    on_front = [records[i].trial for i in np.flatnonzero(num_better(np.array(points)) == 0)]
    known = {training.record.trial for training in models.trainings}
    assert len(known & set(on_front)) >= min(len(on_front), 192)


# -- samplers that cannot


@pytest.mark.parametrize(
    ("sampler", "genotype", "objectives", "message"),
    [
        ("costs_known", DEEP, ("flops", "params"), "objectives that all follow from the genotype"),
        ("gp", PER_LAYER, COSTS, "found 'gp', which draws at random .*, here width_1"),
        ("qmc", PER_LAYER, COSTS, "found 'qmc', which draws at random .*, here width_1"),
        ("grid", DEEP, COSTS, "found 'grid', which lists every genotype"),
    ],
)
def test_a_sampler_is_refused_what_it_cannot_do(sampler, genotype, objectives, message):
    with pytest.raises(ConfigError, match=f"fake.yaml: search.sampler: .*{message}"):
        make_space(genotype, objectives, sampler=sampler)


def test_the_sampler_has_a_seed_of_its_own():
    space = make_space(DEEP, COSTS, seed=3)
    assert space.sampler_root == 3
    varied = parse_space({**space.resolved, "search": {"seed": 5}}, "fake.yaml")
    assert (varied.seed, varied.sampler_root) == (3, 5)


# -- who proposes where the space leaves it open

ALL_MEASURED = ("nll", "accuracy", "brier", "ece")


@pytest.mark.parametrize(
    ("genotype", "objectives", "n_trials", "name", "why"),
    [
        (DEEP, COSTS, 48, "costs_known", "the space has more genotypes than trials, 48 are wanted"),
        (
            FINITE,
            COSTS,
            9,
            "brute_force",
            "with 9 trials, all 9 trainings of the space can be made",
        ),
        (FINITE, COSTS, 8, "costs_known", "the space has 9 trainings, 8 are wanted"),
        (DEEP, ("flops", "params"), 48, "nsga2", "every objective follows from the genotype"),
        (DEEP, ALL_MEASURED, 48, "nsga3", "4 objectives are measured, more than 3"),
    ],
)
def test_a_sampler_is_chosen_by_space_objectives_and_trials(
    genotype, objectives, n_trials, name, why
):
    space = make_space(genotype, objectives, sampler="auto")
    chosen = choose_sampler(space, n_trials)
    assert chosen.name == name and chosen.why.startswith(why)
    assert chosen.sentences == (f"Genotypes were proposed by {name}: {chosen.why}.",)
    assert with_chosen_sampler(space, n_trials).search.sampler == name


def test_a_space_of_many_ranges_is_left_to_tpe():
    """Two families with 17 ranges each."""
    families = (("mlp", VERY_WIDE), ("mlp", VERY_WIDE))
    space = space_of(*families)
    space = with_sampler(space, "auto")
    assert choose_sampler(space, 48).name == "tpe"
    assert choose_sampler(space, 48).why == "the space has 34 ranges, more than 32"
    assert choose_sampler(with_sampler(space_of(families[0]), "auto"), 48).name == "costs_known"


def with_sampler(space, sampler):
    return replace(space, search=space.search.model_copy(update={"sampler": sampler}))


def test_a_study_begun_before_there_was_a_choice_goes_on_by_tpe():
    space = make_space(DEEP, COSTS, sampler="auto")
    assert choose_sampler(space, 48).name != "tpe"
    chosen = choose_sampler(space, 48, is_of_before=True)
    assert (chosen.name, bool(chosen.why)) == ("tpe", True)
    assert with_chosen_sampler(space, 48, is_of_before=True).search.sampler == "tpe"

    named = make_space(DEEP, COSTS, sampler="random")
    assert choose_sampler(named, 48, is_of_before=True).name == "random"


def test_a_sampler_that_is_named_is_taken():
    chosen = choose_sampler(make_space(DEEP, COSTS, sampler="tpe"), 1000)
    assert (chosen.name, chosen.sentences) == ("tpe", ())
