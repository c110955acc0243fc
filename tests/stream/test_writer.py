"""Building a stream: whatever happens on the way, what is sealed is the same bytes."""

import itertools
import random
import shutil

import numpy as np
import pytest
import torch

from gped_nas.errors import EnvironmentProblem, Interrupted, StreamError
from gped_nas.io import lock
from gped_nas.posterior.base import METHODS
from gped_nas.stream import chunks, writer
from gped_nas.stream import format as stream_format
from gped_nas.stream.reader import Stream
from gped_nas.stream.writer import write_predictions, write_view, write_weights
from tests.scenarios import NUM_CLASSES, NUM_EXAMPLES, Chains, predict, stream_key, tree

ABOUT = {"view": {"policy": "clean"}, "inputs": "0" * 64}


class Killed(BaseException):
    """As little warning as a process gets from SIGKILL."""


def build(root, num_samples=8, *, run=None, key=None, should_stop=lambda: False, chains=2, **more):
    return write_weights(
        root,
        key or stream_key(chains=chains),
        run or Chains(chains=chains),
        chains=chains,
        num_samples=num_samples,
        provenance={"host": "here"},
        progress=lambda what, done, total: None,
        should_stop=should_stop,
        **more,
    )


def view(stream, *, name="pool-clean-0", about=ABOUT, should_stop=lambda: False, count=None):
    def counted(theta):
        if count is not None:
            count.append(1)
        return predict(theta)

    write_view(
        stream,
        name,
        about,
        counted,
        num_inputs=NUM_EXAMPLES,
        progress=lambda what, done, total: None,
        should_stop=should_stop,
    )


def sealed(folder):
    views = {f"views/{name}": content for name, content in tree(folder / "views").items()}
    return {**tree(folder / "segments"), **views}


def after(num_calls, error=None):
    """A ``should_stop`` that stops, or raises, at its call number ``num_calls``."""
    calls = [0]

    def should_stop():
        calls[0] += 1
        if calls[0] >= num_calls and error is not None:
            raise error
        return calls[0] >= num_calls

    return should_stop


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Sealed bytes of an undisturbed build of 8 samples."""
    return sealed(build(tmp_path_factory.mktemp("undisturbed")))


def test_samples_are_those_of_the_chains_interleaved(tmp_path):
    stream = Stream(build(tmp_path))
    chains = Chains()
    expected = []
    for chain in range(2):
        steps = itertools.islice(chains(chain, None), 7)
        expected.append([step.sample.theta_W for step in steps if step.sample is not None])

    # sample s is draw s // 2 of chain s % 2
    assert stream.num_samples == 8
    for s in range(8):
        assert torch.equal(stream.theta(s), expected[s % 2][s // 2])
    assert stream.weight_S.tolist() == [1 / 8] * 8
    flat = torch.cat([p.reshape(-1) for p in stream.params(3).values()])
    assert torch.equal(flat, stream.theta(3))


def test_two_builds_are_the_same_bytes_and_times_lie_outside(tmp_path, undisturbed):
    folder = build(tmp_path)
    assert sealed(folder) == undisturbed
    assert (folder / "provenance.json").exists()
    assert not any(b"here" in content for content in undisturbed.values())
    assert not list((folder / "building").iterdir())


def test_a_stream_that_is_there_runs_no_chain(tmp_path):
    build(tmp_path)
    run = Chains()
    build(tmp_path, run=run)
    build(tmp_path, num_samples=4, run=run)
    assert run.num_steps == 0


@pytest.mark.parametrize("stop", [1, 3, 4, 6, 7, 9, 12])
def test_stopping_at_any_step_and_going_on_gives_the_same_bytes(tmp_path, undisturbed, stop):
    # A chain takes three steps of burn-in and four samples and is asked after each but the last:
    # 12 times in all.
    with pytest.raises(Interrupted):
        build(tmp_path, should_stop=after(stop))
    assert not (stream_key().folder(tmp_path) / "segments").exists()
    assert sealed(build(tmp_path)) == undisturbed


@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again_at_random_steps(tmp_path, undisturbed, seed, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)  # a chunk a step, burn-in too
    rng = random.Random(seed)
    kills = 0
    for _ in range(200):
        error = Killed() if rng.random() < 0.6 else None
        try:
            folder = build(tmp_path, should_stop=after(rng.randint(1, 4), error))
            break
        except (Killed, Interrupted):
            kills += 1
    assert kills >= 3
    assert sealed(folder) == undisturbed


@pytest.mark.parametrize("name", ["add", "close"])
def test_killed_inside_any_write(tmp_path, undisturbed, name, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
    original = getattr(stream_format.SealedWriter, name)
    calls_to_kill = [0]

    def kill(self, *args, **kwargs):
        calls_to_kill[0] -= 1
        if calls_to_kill[0] == 0:
            raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(stream_format.SealedWriter, name, kill)
    for call in range(1, 400):
        calls_to_kill[0] = call
        try:
            folder = build(tmp_path)
            break
        except Killed:
            continue
    else:
        pytest.fail("the build never ended")
    assert sealed(folder) == undisturbed


DAMAGES = {
    "truncated shard": lambda chunk: (chunk / "params-000000.npy").write_bytes(b"\x93NUMPY"),
    "flipped byte": lambda chunk: flip(chunk / "params-000000.npy", -1),
    "flipped state": lambda chunk: flip(chunk / "state-00-rng.npy", 500),
    "no manifest": lambda chunk: (chunk / "manifest.json").unlink(),
    "half a manifest": lambda chunk: (chunk / "manifest.json").write_text('{"format_version": 1, '),
    "missing shard": lambda chunk: (chunk / "state-00-theta.npy").unlink(),
    "empty folder": lambda chunk: [p.unlink() for p in chunk.iterdir()],
    "gone": lambda chunk: shutil.rmtree(chunk),
    "a file": lambda chunk: (shutil.rmtree(chunk), chunk.write_text("")),
    "a link": lambda chunk: (
        chunk.rename(chunk.with_name("moved")),
        chunk.symlink_to(chunk.parent / "moved"),
    ),
}


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", [1, -1])
def test_damaged_chunks_are_dropped_with_all_later_ones(
    tmp_path, undisturbed, damage, which, monkeypatch
):
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
    with pytest.raises(Killed):
        build(tmp_path, should_stop=after(6, Killed()))
    paths = sorted(tmp_path.glob("*/building/*/chain-00/chunk-*"))
    assert len(paths) == 5
    DAMAGES[damage](paths[which])
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 1.0)
    assert sealed(build(tmp_path)) == undisturbed


def test_leftovers_of_a_killed_process_do_no_harm(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
    with pytest.raises(Killed):
        build(tmp_path, should_stop=after(9, Killed()))

    building = next(stream_key().folder(tmp_path).glob("building/*"))
    for folder in ("sealing", "chain-00/.writing", "chain-01/.writing"):
        (building / folder).mkdir(parents=True, exist_ok=True)
        (building / folder / "params-000000.npy").write_bytes(b"half")
        (building / folder / "params-000007.npy").write_bytes(b"older")
    (building / "chain-00" / ".params.npy.1.tmp").write_bytes(b"half")

    assert sealed(build(tmp_path)) == undisturbed


def test_resuming_at_nine_tenths_costs_less_than_a_fifth(tmp_path):
    whole = Chains(chains=1)
    build(tmp_path / "whole", 40, run=whole, chains=1)

    rest = Chains(chains=1)
    should_stop = after(int(0.9 * whole.num_steps))
    with pytest.raises(Interrupted):
        build(tmp_path / "cut", 40, run=rest, should_stop=should_stop, chains=1)

    rest.num_steps = 0
    folder = build(tmp_path / "cut", 40, run=rest, chains=1)
    assert rest.num_steps < whole.num_steps / 5
    assert sealed(folder) == sealed(stream_key(chains=1).folder(tmp_path / "whole"))


class TestGrowth:
    def test_more_samples_make_a_new_segment_and_leave_the_old(self, tmp_path, undisturbed):
        folder = build(tmp_path, 8)
        prefix = Stream(folder, num_samples=8).digest

        run = Chains()
        build(tmp_path, 12, run=run)
        assert run.num_steps == 4  # two samples a chain, no burn-in again

        segments = folder / "segments"
        old = {f"000000/{name}": content for name, content in tree(segments / "000000").items()}
        assert old == undisturbed
        assert tree(segments / "000001")
        assert Stream(folder, num_samples=8).digest == prefix
        assert Stream(folder).digest != prefix

    def test_grown_in_steps_is_one_long_run(self, tmp_path):
        long = Stream(build(tmp_path / "long", 14))
        for num in (2, 6, 8, 14):
            grown = Stream(build(tmp_path / "grown", num))
        assert len(grown.segments) == 4
        assert all(torch.equal(grown.theta(s), long.theta(s)) for s in range(14))
        assert torch.equal(grown.weight_S, long.weight_S)
        for chain in range(2):  # and the state to go on from is the same
            name = f"state-{chain:02d}-rng.npy"
            assert np.array_equal(grown.segments[-1].read(name), long.segments[-1].read(name))

    @pytest.mark.parametrize("seed", range(3))
    def test_killed_while_growing(self, tmp_path, seed, monkeypatch):
        monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)
        build(tmp_path / "a", 4)
        expected = sealed(build(tmp_path / "a", 12))
        build(tmp_path / "b", 4)
        rng = random.Random(seed)
        for _ in range(100):
            try:
                folder = build(tmp_path / "b", 12, should_stop=after(rng.randint(1, 3), Killed()))
                break
            except Killed:
                continue
        assert sealed(folder) == expected

    def test_a_build_left_half_way_does_not_leak_into_one_of_another_length(self, tmp_path):
        # 4 samples, then stopped on the way to 12; then the stream is made anew with 8 and grown to
        # 16: the chunks left behind go on from sample 4 and must not be taken for those that go on
        # from sample 8.
        folder = build(tmp_path, 4)
        with pytest.raises(Interrupted):
            build(tmp_path, 12, should_stop=after(2))

        shutil.rmtree(folder / "segments")
        build(tmp_path, 8)
        grown = Stream(build(tmp_path, 16))
        long = Stream(build(tmp_path / "long", 16))
        assert all(torch.equal(grown.theta(s), long.theta(s)) for s in range(16))

    def test_a_prefix_is_read_where_fewer_are_asked_for(self, tmp_path):
        folder = build(tmp_path, 4)
        build(tmp_path, 8)
        long = Stream(folder)
        short = Stream(folder, num_samples=6)
        assert short.num_samples == 6
        assert short.weight_S.tolist() == [1 / 6] * 6
        assert short.digest != long.digest

        view(long)
        predictions = short.predictions("pool-clean-0")
        assert predictions.shape == (6, NUM_EXAMPLES, NUM_CLASSES)
        assert torch.equal(predictions, long.predictions("pool-clean-0")[:6])

    def test_a_missing_segment_is_refused_by_reader_and_writer(self, tmp_path):
        folder = build(tmp_path, 4)
        build(tmp_path, 8)
        shutil.rmtree(folder / "segments" / "000000")
        with pytest.raises(StreamError, match="000001: a segment before it is missing"):
            Stream(folder)
        run = Chains()
        with pytest.raises(StreamError, match="000001: a segment before it is missing"):
            build(tmp_path, 12, run=run)
        assert run.num_steps == 0

    def test_a_last_segment_that_was_deleted_is_made_anew(self, tmp_path):
        folder = build(tmp_path, 4)
        build(tmp_path, 8)
        before = sealed(folder)
        shutil.rmtree(folder / "segments" / "000001")
        build(tmp_path, 8)
        assert sealed(folder) == before

    def test_a_corrupt_state_is_not_grown_from(self, tmp_path):
        folder = build(tmp_path, 4)
        flip(folder / "segments/000000/state-01-rng.npy", 600)
        with pytest.raises(StreamError, match="state-01-rng.npy: corrupt"):
            build(tmp_path, 8)


class TestViews:
    def test_predictions_of_every_sample_in_order(self, tmp_path):
        stream = Stream(build(tmp_path))
        view(stream)
        expected = torch.stack([predict(stream.theta(s)) for s in range(8)])
        assert torch.equal(stream.predictions("pool-clean-0"), expected)
        assert stream.has_view("pool-clean-0", ABOUT)
        assert not stream.has_view("pool-noise-1", ABOUT)

    def test_a_view_is_made_once_and_only_for_new_segments(self, tmp_path):
        count = []
        folder = build(tmp_path, 4)
        view(Stream(folder), count=count)
        view(Stream(folder), count=count)
        assert len(count) == 4

        before = tree(folder / "views" / "pool-clean-0" / "000000")
        build(tmp_path, 10)
        stream = Stream(folder)
        assert not stream.has_view("pool-clean-0", ABOUT)
        view(stream, count=count)
        assert len(count) == 10
        assert tree(folder / "views" / "pool-clean-0" / "000000") == before
        assert stream.predictions("pool-clean-0").shape[0] == 10

    def test_stopped_views_go_on_and_are_the_same_bytes(self, tmp_path, monkeypatch):
        two_samples = 2 * NUM_EXAMPLES * NUM_CLASSES * 4
        monkeypatch.setattr(writer, "SHARD_BYTES", two_samples)
        folder = build(tmp_path / "a")
        view(Stream(folder))
        expected = tree(folder / "views")
        assert len(Stream(folder)._view("pool-clean-0")[0].names("log_prob")) == 4

        # stopped before samples 1 and 3 and then 4: whole shards are kept
        folder = build(tmp_path / "b")
        count = []
        for should_stop in (after(2), after(4, Killed()), after(3)):
            with pytest.raises((Interrupted, Killed)):
                view(Stream(folder), should_stop=should_stop, count=count)

        # not one this format writes, so it is made anew
        leftover = next((folder / "building").glob("view-*")) / "log_prob-000001.npy"
        leftover.write_bytes(leftover.read_bytes()[:-3])
        view(Stream(folder), count=count)
        assert tree(folder / "views") == expected
        assert len(count) < 8 + 8

    def test_a_view_of_other_inputs_is_refused(self, tmp_path):
        stream = Stream(build(tmp_path))
        view(stream)
        with pytest.raises(StreamError, match="pool-clean-0/000000: was made for other inputs"):
            view(stream, about={**ABOUT, "inputs": "1" * 64})

    def test_a_view_of_another_segment_is_refused(self, tmp_path):
        folder = build(tmp_path, 4)
        build(tmp_path, 8)
        view(Stream(folder))
        views = folder / "views" / "pool-clean-0"
        (views / "000000").rename(views / "x")
        (views / "000001").rename(views / "000000")
        (views / "x").rename(views / "000001")
        with pytest.raises(StreamError, match="000000: is not of its segment"):
            Stream(folder).predictions("pool-clean-0")

    def test_a_view_left_of_a_shorter_segment_is_refused(self, tmp_path):
        folder = build(tmp_path, 4)
        view(Stream(folder))
        shutil.rmtree(folder / "segments")
        build(tmp_path, 8)
        with pytest.raises(StreamError, match="000000: is not of its segment"):
            Stream(folder).predictions("pool-clean-0")

    def test_an_unknown_view_names_those_that_are_there(self, tmp_path):
        stream = Stream(build(tmp_path))
        with pytest.raises(StreamError, match="there are: none"):
            stream.predictions("absent")
        view(stream)
        with pytest.raises(StreamError, match="there are: pool-clean-0"):
            stream.predictions("absent")


def test_small_shards_hold_the_same_samples(tmp_path, monkeypatch):
    expected = Stream(build(tmp_path / "large", 9, chains=1))
    monkeypatch.setattr(writer, "SHARD_BYTES", 2 * 4 * 43)  # two samples of 43 parameters a shard
    stream = Stream(build(tmp_path / "small", 9, chains=1))
    assert len(stream.segments[0].names("params")) == 5
    assert all(torch.equal(stream.theta(s), expected.theta(s)) for s in range(9))
    with pytest.raises(StreamError, match="no posterior sample 9"):
        stream.theta(9)
    with pytest.raises(StreamError, match="no posterior sample -1"):
        stream.theta(-1)


def test_a_method_that_ends_early_is_an_error(tmp_path):
    def run(chain, state):
        yield from itertools.islice(Chains()(chain, state), 5)

    with pytest.raises(StreamError, match="ended after 2 samples, expected 4"):
        build(tmp_path, run=run)
    assert "sgld" in METHODS


def test_a_key_that_was_edited_is_not_written_over(tmp_path):
    folder = build(tmp_path, 4)
    text = (folder / "key.json").read_text()
    for edited in (
        text.replace('"seed":0', '"seed":1'),
        text[:40],
        "{}",
        text.replace("2.0", "1e999"),
    ):
        (folder / "key.json").write_text(edited)
        with pytest.raises(StreamError, match=r"key\.json"):
            build(tmp_path, 8)


def test_settings_with_tuples_are_the_same_key_when_they_come_back(tmp_path):
    key = stream_key()
    step_size = {**key.method["step_size"], "halve_at": tuple(key.method["step_size"]["halve_at"])}
    key = type(key)(**{**vars(key), "method": {**key.method, "step_size": step_size}})
    assert key.digest == stream_key().digest
    folder = build(tmp_path, 4, key=key)
    assert build(tmp_path, 8, key=key) == folder


def test_a_root_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="cannot create the directory"):
        build(tmp_path / "file" / "streams")
    with pytest.raises(EnvironmentProblem, match="cannot create the directory"):
        imported_predictions(tmp_path / "file" / "streams")


def test_the_lock_is_free_after_an_interruption_and_after_an_error(tmp_path):
    for stop in (after(3), after(3, Killed())):
        with pytest.raises((Interrupted, Killed)):
            build(tmp_path, should_stop=stop)
        with lock(stream_key().folder(tmp_path) / "lock", wait=False):
            pass


def imported_predictions(root, *, weight=(1.0, 3.0), order="C"):
    inputs = np.arange(20, dtype=np.float64).reshape(5, 4)
    prob = np.random.default_rng(0).dirichlet(np.ones(NUM_CLASSES), (2, 5))
    folder = write_predictions(
        root,
        stream_key(),
        inputs_MD=np.asarray(inputs, order=order),
        log_prob_SMC=np.asarray(np.log(prob), order=order),
        weight_S=np.asarray(weight, np.float64),
        provenance={},
    )
    return folder, inputs, np.log(prob)


class TestPredictions:
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_they_come_back(self, tmp_path, order):
        folder, inputs, log_prob = imported_predictions(tmp_path, order=order)
        stream = Stream(folder)
        read_inputs, read_log_prob = stream.imported()
        np.testing.assert_array_equal(read_inputs, inputs.astype(np.float32))
        np.testing.assert_array_equal(read_log_prob.numpy(), log_prob.astype(np.float32))
        assert not stream.has_weights
        assert stream.weight_S.tolist() == [0.25, 0.75]
        with pytest.raises(StreamError, match="predictions only"):
            stream.theta(0)
        assert Stream(folder, num_samples=1).imported()[1].shape[0] == 1

    def test_a_second_import_changes_nothing(self, tmp_path):
        folder, _, _ = imported_predictions(tmp_path)
        before = tree(folder / "segments")
        assert imported_predictions(tmp_path)[0] == folder
        assert tree(folder / "segments") == before

    def test_leftovers_of_a_killed_import_do_no_harm(self, tmp_path):
        expected = tree(imported_predictions(tmp_path / "a")[0] / "segments")
        building = stream_key().folder(tmp_path / "b") / "building" / "segment-000000"
        building.mkdir(parents=True)
        (building / "log_prob-000000.npy").write_bytes(b"half")
        assert tree(imported_predictions(tmp_path / "b")[0] / "segments") == expected

    @pytest.mark.parametrize(
        "weight", [(0.0, 0.0), (1.0, -1.0), (1.0, np.nan), (1.0, np.inf), (1e308, 1.7e308)]
    )
    def test_weights_that_are_no_average_are_refused(self, tmp_path, weight):
        folder, _, _ = imported_predictions(tmp_path, weight=weight)
        message = "weights must be finite, not negative, and not all zero"
        with pytest.raises(StreamError, match=message):
            _ = Stream(folder).weight_S

    def test_a_stream_of_parameters_holds_no_imported_predictions(self, tmp_path):
        with pytest.raises(StreamError, match="holds parameters"):
            Stream(build(tmp_path)).imported()
