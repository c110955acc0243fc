"""Device names, and how many threads a piece of work gets."""

import pytest
import torch

from gped_nas import device
from gped_nas.errors import ConfigError, EnvironmentProblem


def test_auto_is_a_device_that_is_there() -> None:
    assert device.choose("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cpu:x"])
def test_a_name_torch_cannot_compute_on_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda"):
        device.choose(name)


def test_a_device_that_is_not_there_is_an_environment_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentProblem, match="use --device cpu"):
        device.choose("cuda")


@pytest.mark.parametrize(("macs", "threads"), [(device.SHARED_MACS - 1, 1), (device.SHARED_MACS, 3)])
def test_small_products_get_one_thread_and_the_number_is_restored(macs: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(KeyError), device.threads_for(macs):
            assert torch.get_num_threads() == threads
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
