"""Who trains whom: shares of workers, order in a bundle."""

import pytest
import torch

from gped_nas import device as devices
from gped_nas.distill import layout, team
from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.layout import Share, lay_out
from gped_nas.distill.phases.bundle import PhasedMlp
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, Genotype
from tests.distill.populations import BY_ACTIVATION, CNN, MIXED, MLP, RESNET, fresh, make_data


def shares(genotypes, num_workers=3, batch_size=16, phase_starts=()):
    data = make_data(1)
    shapes = [data.shapes(g) for g in genotypes]
    return lay_out(
        genotypes,
        shapes,
        [g.family == "mlp" for g in genotypes],
        phase_starts or [0] * len(genotypes),
        input_shape=(1, 6, 6),
        batch_size=batch_size,
        num_workers=num_workers,
    )


def products(genotype, batch_size=16):
    shapes = make_data(1).shapes(genotype)
    macs = FAMILIES[genotype.family].macs(shapes, (1, 6, 6))
    return 3 * batch_size * sum(macs.values())


@pytest.fixture
def plenty(monkeypatch):
    """Every worker has enough to do."""
    monkeypatch.setattr(layout, "_WORTH_A_WORKER", 1)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 50])
def test_everyone_is_trained_once(plenty, num_workers):
    genotypes = [*MLP, *CNN, *RESNET]
    shared = shares(genotypes, num_workers)

    members = [p for share in shared for p in share.members]
    assert sorted(members) == list(range(len(genotypes)))
    for share in shared:
        assert {genotypes[p].family for p in share.members} == {share.family}

    workers = {share.worker for share in shared}
    assert workers == set(range(min(num_workers, len(genotypes)))), "none is idle"
    bundles = {(share.worker, share.family) for share in shared}
    assert len(bundles) == len(shared), "a family is one bundle"


def test_chains_of_each_activation_are_a_bundle_and_others_are_one(plenty):
    dense = [*MLP[:2], *BY_ACTIVATION["tanh"][:2], *BY_ACTIVATION["gelu"][:1]]
    images = [CNN[0], CNN[1].replace(activation="tanh")]
    shared = shares([*dense, *images], 1)
    bundles = [(share.family, share.activation, share.members) for share in shared]
    assert bundles == [
        ("cnn", "relu", (5, 6)),
        ("mlp", "gelu", (4,)),
        ("mlp", "relu", (0, 1)),
        ("mlp", "tanh", (2, 3)),
    ]


def test_who_is_pruned_is_no_bundle_with_who_is_not(plenty):
    """An optimizer counts its updates from the beginning of the phase."""
    shared = shares(MLP[:4], 1, phase_starts=[0, 40, 0, 60])
    assert [(share.phase_start, share.members) for share in shared] == [
        (0, (0, 2)),
        (40, (1,)),
        (60, (3,)),
    ]


def test_where_phases_run_other_units_than_relus_are_left_to_the_graph(monkeypatch):
    monkeypatch.setattr(team, "takes_phases", lambda kernel, device: True)
    room = team.Classroom(
        data=make_data(),
        recipe=Recipe(steps=1),
        dtype=torch.float32,
        device=torch.device("cpu"),
        num_workers=1,
        feed=iter(()),
        schedule=None,
        input_shape=(1, 6, 6),
    )
    kinds = {"relu": PhasedMlp, "tanh": FusedMlp, "silu": FusedMlp, "gelu": FusedMlp}
    for activation, kind in kinds.items():
        share = Share(0, "mlp", is_dense=True, activation=activation, phase_start=0, members=(0,))
        students = fresh([MLP[2].replace(activation=activation)])
        assert type(room.bundle(share, students)) is kind


def test_the_dearest_are_shared_out_first(plenty):
    """Costs 4, 3, 2, 1 in units of many layers: two workers get {4, 1} and {3, 2}."""
    widths = [1000, 4000, 2000, 3000]
    shared = shares([Genotype("mlp", depth=1, width=width) for width in widths], 2, batch_size=64)
    assert [sorted(widths[p] for p in share.members) for share in shared] == [
        [1000, 4000],
        [2000, 3000],
    ]


def test_a_worker_must_be_worth_it(monkeypatch):
    total = sum(products(g) for g in MIXED)
    num_workers = {total + 1: 1, total: 1, total // 2: 2, total // 3: 3, total // 9: 4}
    for worth, expected in num_workers.items():
        monkeypatch.setattr(layout, "_WORTH_A_WORKER", worth)
        assert len({share.worker for share in shares(MIXED, 4)}) == expected


def test_equal_shapes_are_side_by_side_whatever_their_order():
    genotypes = [MLP[i] for i in (5, 2, 0, 4, 3, 6, 1)]
    (share,) = shares(genotypes)
    ordered = [genotypes[p] for p in share.members]
    depths = [g["depth"] for g in ordered]
    assert depths == sorted(depths)
    assert [g["width"] for g in ordered] == [(), (1,), (6,), (6,), (4, 6), (9, 6), (3, 5, 4)]


def test_other_families_go_in_turn_as_they_came():
    (share,) = shares([CNN[1], CNN[0], CNN[1]])
    assert share.members == (0, 1, 2)


def test_one_worker_a_core_and_one_for_a_gpu():
    assert layout.num_workers(torch.device("cpu")) == devices.usable_cores()
    assert layout.num_workers(torch.device("cuda")) == 1
