"""Chains that run at once leave what they leave one by one."""

import pytest

from gped_nas.errors import Interrupted
from gped_nas.posterior.base import Chains
from tests.scenarios import classifier, sgld_config, stream_key
from tests.stream.test_writer import after, build, sealed


class Together:
    """Chains of a processor in step with each other; ``company`` has who ran at once."""

    def __init__(self):
        self.company = []

    def __call__(self, chains, states):
        self.company.append(list(chains))
        run = Chains(classifier, sgld_config(), 0)
        return zip(*[run(c, s) for c, s in zip(chains, states, strict=True)], strict=True)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    return sealed(build(tmp_path_factory.mktemp("one-by-one")))


def refuse_to_run(chain, state):
    raise AssertionError("all run at once")


def test_chains_at_once_seal_the_same_bytes(tmp_path, one_by_one):
    together = Together()
    folder = build(tmp_path, run=refuse_to_run, run_together=together)
    assert sealed(folder) == one_by_one
    assert together.company == [[0, 1]]


@pytest.mark.parametrize("stop", [1, 2, 4, 6])
def test_stopping_all_at_once_and_going_on_gives_the_same_bytes(tmp_path, one_by_one, stop):
    together = Together()
    with pytest.raises(Interrupted, match="run the same command again"):
        build(tmp_path, run_together=together, should_stop=after(stop))
    assert not (stream_key().folder(tmp_path) / "segments").exists()
    assert sealed(build(tmp_path, run_together=together)) == one_by_one


@pytest.mark.parametrize("stop", [3, 9])
def test_what_one_by_one_began_all_at_once_end(tmp_path, one_by_one, stop):
    """A chain may be done, and another not begun."""
    with pytest.raises(Interrupted):
        build(tmp_path, should_stop=after(stop))
    together = Together()
    assert sealed(build(tmp_path, run_together=together)) == one_by_one
    assert together.company == ([[0, 1], [1]] if stop == 3 else [[1]])


def test_more_samples_later_go_on_from_what_is_sealed(tmp_path):
    build(tmp_path / "a", run_together=Together())
    grown = build(tmp_path / "a", num_samples=12, run_together=Together())
    build(tmp_path / "b")
    assert sealed(grown) == sealed(build(tmp_path / "b", num_samples=12))
