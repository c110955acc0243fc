"""Students trained on principal components are folded back into students of plain inputs."""

import gc
import weakref

import pytest
import torch

from gped_nas.distill import components
from gped_nas.distill.components import fit, in_components
from gped_nas.distill.feed import CachedFeed
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Genotype, initialize
from tests.distill.reference import distill_one
from tests.distill.test_kernel import CPU, MIXED, largest_difference, make_pool, mlp

FIRST = ("layers.0.weight", "layers.0.bias")
RECIPE = Recipe(steps=60, batch_size=37, warmup=5, lr=0.02, weight_decay=0.05, components=4)


def run(genotypes, pool, recipe=RECIPE, **more):
    return distill(genotypes, pool, recipe, seed=0, device=CPU, **more).students


def test_directions_are_orthonormal_and_those_of_greatest_variance_first():
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([0.1, 5.0, 1.0, 0.5])
    turn, _ = torch.linalg.qr(torch.randn((4, 4), generator=generator))
    x = 3 + (torch.randn((4000, 4), generator=generator) * spread) @ turn
    frame = fit(x, 2)
    torch.testing.assert_close(frame.basis_DJ.T @ frame.basis_DJ, torch.eye(2), atol=1e-6, rtol=0)
    cosines = (turn[[1, 2]] @ frame.basis_DJ).diagonal().abs()
    assert cosines.min() > 0.99, cosines
    torch.testing.assert_close(frame.project(x).mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    assert frame.project(x).std(0).tolist() == pytest.approx([5.0, 1.0], rel=0.05)


@pytest.mark.parametrize("depth", [0, 2])
def test_a_student_is_the_same_function_inside_the_frame_and_outside(depth):
    pool = make_pool(shape=(1, 4, 4))
    frame = fit(pool.inputs, 5)
    genotype = mlp(depth, [6] * depth)
    params = initialize(pool.shapes(genotype), generator=torch.Generator().manual_seed(2))

    inside = frame.enter(params, FIRST)
    outside = frame.leave(inside, FIRST)
    assert inside["layers.0.weight"].shape[1] == 5
    assert outside["layers.0.weight"].shape == params["layers.0.weight"].shape

    forward = FAMILIES["mlp"].forward
    raw = forward(outside, pool.inputs)
    expected = forward(inside, frame.project(pool.inputs))
    torch.testing.assert_close(raw, expected, atol=1e-5, rtol=1e-5)
    norms = outside["layers.0.weight"].norm(dim=1)
    torch.testing.assert_close(norms, inside["layers.0.weight"].norm(dim=1))


def test_with_every_direction_no_weight_is_lost():
    pool = make_pool()
    params = initialize(pool.shapes(mlp(1, 6)), generator=torch.Generator().manual_seed(2))
    frame = fit(pool.inputs, 9)
    back = frame.leave(frame.enter(params, FIRST), FIRST)
    torch.testing.assert_close(back["layers.0.weight"], params["layers.0.weight"])


def test_students_equal_those_of_the_oracle():
    pool = make_pool()
    students = run(MIXED, pool)
    for genotype, student in zip(MIXED, students, strict=True):
        expected = distill_one(genotype, pool, RECIPE, seed=0)
        assert largest_difference(student.params, expected) < 1e-5, str(genotype)
    assert sum(student.num_dead for student in students) > 5


def test_students_do_not_see_what_varies_least():
    pool = make_pool()
    (student,) = run([mlp(1, 8)], pool)
    frame = fit(pool.inputs, 9)
    unseen = frame.basis_DJ[:, RECIPE.components :]
    assert (student.params["layers.0.weight"] @ unseen).abs().max() < 1e-5
    (plain,) = run([mlp(1, 8)], pool, RECIPE.model_copy(update={"components": 0}))
    assert (plain.params["layers.0.weight"] @ unseen).abs().max() > 0.1


def test_the_sign_of_a_direction_changes_nothing(monkeypatch):
    expected = run(MIXED, make_pool())
    plain_fit = components.fit

    def flip(x, num):
        frame = plain_fit(x, num)
        signs = torch.tensor([1.0, -1.0, -1.0, 1.0])
        return components.Components(frame.mean_D, frame.basis_DJ * signs)

    monkeypatch.setattr(components, "fit", flip)
    for student, twin in zip(expected, run(MIXED, make_pool()), strict=True):
        assert largest_difference(student.params, twin.params) < 1e-5


def test_rungs_look_at_validation_in_the_same_frame():
    pool, validation = make_pool(), make_pool(size=60)
    recipe = RECIPE.model_copy(update={"rungs": 2})
    (student,) = run([mlp(2, 7)], pool, recipe, validation=validation)
    raw = FAMILIES["mlp"].forward(student.params, validation.inputs)
    loss = validation.layout.loss(raw[None], validation.expectations, {})
    assert student.rungs[-1][1] == pytest.approx(float(loss), rel=1e-4)


def test_a_feed_of_its_own_is_shown_in_the_frame():
    pool = make_pool()
    (fed,) = run([mlp(2, 7)], pool, feed=CachedFeed(pool, RECIPE, 0))
    assert largest_difference(fed.params, run([mlp(2, 7)], pool)[0].params) < 1e-5


def test_a_frame_is_found_once_and_goes_with_its_data():
    pool = make_pool()
    frame, inside = in_components(pool, 4)
    assert in_components(pool, 4) == (frame, inside) and in_components(pool, 3)[0] is not frame
    gone = weakref.ref(inside)
    del pool, frame, inside
    gc.collect()
    assert gone() is None


def test_pictures_are_refused():
    genotype = Genotype("cnn", depth=1, width=2, kernel=3, pool=1, head_width=())
    message = r"recipe.components: found 4 with students of family cnn, expected 0"
    with pytest.raises(ConfigError, match=message):
        run([genotype], make_pool())


def test_more_components_than_numbers_are_refused():
    recipe = RECIPE.model_copy(update={"components": 10})
    message = r"recipe.components: found 10, expected at most 9, the numbers of one input"
    with pytest.raises(ConfigError, match=message):
        run([mlp(1, 2)], make_pool(), recipe)
