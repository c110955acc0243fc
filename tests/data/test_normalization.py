"""Mean and deviation of raw numbers: what shares them, and what float32 can show."""

import numpy as np
import pytest
import torch

from gped_nas.data.dials import DataConfig, turn
from gped_nas.data.normalization import (
    AxisNormalization,
    Normalization,
    Normalize,
    check_float32_shows,
    fit,
    fit_axis,
)
from gped_nas.errors import DataError
from tests.data.tables import make_dataset


def test_each_column_has_its_own_mean_and_deviation() -> None:
    # Column 0 is 1, 3: mean 2, deviation 1. Column 1 is 100, 500: mean 300, deviation 200.
    x = torch.tensor([[1.0, 100.0], [3.0, 500.0]])
    normalization = fit_axis(x)
    assert normalization == AxisNormalization((2.0, 300.0), (1.0, 200.0))
    assert normalization(x).tolist() == [[-1.0, -1.0], [1.0, 1.0]]
    assert normalization.invert(normalization(x)).tolist() == x.tolist()


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    draw = np.random.default_rng(0)
    scale = np.array([1.0, 10.0, 100.0])[:, None, None]
    x = torch.from_numpy(draw.normal(size=(50, 3, 4, 5)) * scale + scale)
    normalized = fit_axis(x)(x).double()
    assert normalized.mean((0, 2, 3)).abs().max() < 1e-6
    assert (normalized.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


def test_gray_pictures_are_the_same_by_channels_and_as_a_whole() -> None:
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.integers(0, 256, size=(500, 1, 6, 5), dtype=np.uint8))
    torch.testing.assert_close(fit_axis(x)(x), fit(x)(x), rtol=3e-7, atol=1e-7)


def test_a_constant_column_is_only_moved() -> None:
    x = torch.tensor([[1e6, 1.0], [1e6, 3.0]])
    assert fit_axis(x) == AxisNormalization((1e6, 2.0), (1.0, 1.0))


def test_columns_do_not_depend_on_how_many_examples_are_read_at_a_time() -> None:
    x = torch.randn((9000, 3), generator=torch.Generator().manual_seed(0)).double()
    whole = x.numpy()
    normalization = fit_axis(x)
    assert np.allclose(normalization.mean, whole.mean(0), rtol=0, atol=1e-15)
    assert np.allclose(normalization.std, whole.std(0), rtol=1e-14)


@pytest.mark.parametrize("offset", [1.7e12, 1e6])
def test_the_mean_of_numbers_far_from_zero_is_taken_off_before_casting(offset: float) -> None:
    near = torch.randn(500, generator=torch.Generator().manual_seed(0)).double() * 100
    far = near + offset
    assert torch.allclose(fit(far)(far), fit(near)(near), rtol=0, atol=1e-5)


def test_one_pair_near_zero_casts_first_as_it_always_did() -> None:
    x = torch.randn((100, 3), generator=torch.Generator().manual_seed(0)).double()
    normalization = Normalization(0.1, 1.3)
    assert torch.equal(normalization(x), x.float().sub(0.1).div(1.3))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("normalize", ["columns", "whole"])
def test_inputs_that_float32_cannot_show_are_refused(dtype: str, normalize: Normalize) -> None:
    draw = np.random.default_rng(0)
    x = (50 + 1e-5 * draw.normal(size=(100, 3))).astype(dtype)
    with pytest.raises(DataError, match="here: x_train: .*around 50.*subtract an offset"):
        make_dataset(x, normalize)


def test_the_message_names_the_column() -> None:
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 1] = 1.7e9 + np.arange(100)
    with pytest.raises(DataError, match="column 1, numbers around 1.7"):
        make_dataset(x, "columns")


@pytest.mark.parametrize("x", [np.full((40, 2), 7e8), np.arange(80).reshape(40, 2) + 10_000])
def test_constants_and_what_float32_can_show_are_taken(x: np.ndarray) -> None:
    check_float32_shows(torch.from_numpy(x), "columns", "x_train")


def test_columns_of_a_table_are_another_dataset_than_the_whole() -> None:
    x = np.random.default_rng(0).normal(size=(100, 3))
    columns = make_dataset(x, "columns")
    whole = make_dataset(x, "whole")
    assert columns.digest != whole.digest
    assert torch.equal(columns.raw("train"), whole.raw("train"))


@pytest.mark.parametrize(
    ("normalize", "shape", "remedy"),
    [("columns", (40, 1, 4, 4), "channels"), ("channels", (40, 4), "columns")],
)
def test_a_rule_of_other_data_is_refused(
    normalize: Normalize, shape: tuple[int, ...], remedy: str
) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    with pytest.raises(DataError, match=f"normalize: {normalize} .*; set normalize: {remedy}"):
        make_dataset(x, normalize)


def test_masked_pictures_are_normalized_by_channel_again() -> None:
    x = np.random.default_rng(0).normal(size=(100, 2, 6, 6)) + 5
    masked = turn(make_dataset(x, "channels"), DataConfig(mask=3), "data")
    assert masked.normalization == fit_axis(masked.raw("train"))
