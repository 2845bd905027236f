"""What raises on the way of blocks: nobody waits for ever, nothing is lost that could be used, and
options that would mean something else are refused."""

import time
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", exc_type=ImportError)
pytest.importorskip("hearth._hearth", exc_type=ImportError)

import hearth
import torch
from rig import ROW, SMALL_STORE, Rig, hearth_tier, keys

from hearth.vllm import options
from hearth.vllm.direct import DirectMover
from hearth.vllm.pages import Pages
from hearth.vllm.planner import Load, Save
from hearth.vllm.staged import StagedMover
from hearth.vllm.stats import HearthConnectorStats

BLOCKS = 8


@pytest.fixture(params=[DirectMover, StagedMover], ids=["direct", "staged"])
def moving(request, store_path):
    """A mover over two layers of host memory, and a real store."""
    caches = {f"layer{index}": torch.arange(BLOCKS * 4096, dtype=torch.int32)
              .add(index).to(torch.int8).reshape(BLOCKS, 4096).clone() for index in range(2)}
    pages = Pages(caches, list(caches), BLOCKS, 4096)
    with hearth.open(str(store_path), **SMALL_STORE) as store:
        space = store.namespace({"test": "movers"}, layout="aligned")
        owner = SimpleNamespace(pages=pages, stats=HearthConnectorStats())
        mover = request.param(store, owner, {
            "load_timeout_s": 10.0, "durability": "written", "pending_save_bytes": 1 << 20,
            "staging_bytes": 1 << 20})
        yield mover, space, caches, owner
        mover.close()
        space.close()


def settle(mover):
    mover.wait_saves(set(), 10.0)
    mover.poll()


NAMES = [b"block%d" % index for index in range(4)]


def test_blocks_come_back_from_the_space_they_went_to(moving):
    mover, space, caches, _ = moving
    before = {name: cache.clone() for name, cache in caches.items()}
    assert mover.save([Save("r", NAMES, [0, 1, 2, 3], None)], space) == 0
    settle(mover)
    for cache in caches.values():
        cache.zero_()
    mover.load([Load("r", NAMES, [7, 6, 5, 4])], space)
    mover.wait_shard(1)  # in whatever order
    mover.wait_shard(0)
    assert mover.end_loads() == {}
    for name, cache in caches.items():
        assert torch.equal(cache[4:].flip(0), before[name][:4])
    mover.load([Load("r", NAMES, [0, 1, 2, 3])], space.store.namespace({"test": "another"}))
    assert set(mover.end_loads()) == {0, 1, 2, 3}


@pytest.mark.parametrize("error", [ValueError("odd"), BufferError("in use"), TypeError("what")])
def test_a_store_that_takes_nothing(moving, error):
    """Calls of the store that raise: a load fails by name, a save is dropped, the mover lives."""
    mover, space, _, owner = moving

    class Raising:
        def __getattr__(self, name):
            raise error

        def submit_get(self, *given, **more):
            raise error

        submit_put = submit_get

        def put(self, *given, **more):
            raise error

    gets, mover._gets = mover._gets, Raising()
    mover.load([Load("r", NAMES, [0, 1, 2, 3])], space)
    assert mover.end_loads() == dict.fromkeys(range(4), "refused")
    mover._gets = gets
    puts = getattr(mover, "_puts", None)
    if puts is not None:
        mover._puts = Raising()
        assert mover.save([Save("r", NAMES, [0, 1, 2, 3], None)], space) == 4
        mover._puts = puts
    else:
        free = len(mover._cells._free)
        assert mover.save([Save("r", NAMES, [0, 1, 2, 3], None)], Raising()) == 0
        settle(mover)
        assert len(mover._cells._free) == free  # none is lost
        assert owner.stats.data["saves_dropped"] == {"error": 4}
    assert mover.save([Save("r", NAMES, [0, 1, 2, 3], None)], space) == 0
    settle(mover)
    assert space.contains_many(NAMES) == [True] * 4


def test_a_copy_that_fails_is_not_put(moving):
    mover, space, _, _ = moving
    if isinstance(mover, DirectMover):
        pytest.skip("no copies there")

    class Event:
        def query(self):
            return True

        def synchronize(self):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    mover._event = Event
    mover.save([Save("r", NAMES, [0, 1, 2, 3], None)], space)
    mover._event = lambda: None
    settle(mover)
    assert not mover._saving and space.contains_many(NAMES) == [False] * 4
    mover.save([Save("r", NAMES, [0, 1, 2, 3], None)], space)  # the thread is still there
    settle(mover)
    assert space.contains_many(NAMES) == [True] * 4


def test_blocks_that_cannot_be_dropped_do_not_stop_a_step(moving):
    """A failed read's block is deleted, so that it is not found again; if not, the step goes on."""
    mover, space, _, _ = moving
    gets = mover._gets

    class Failing:
        """Every read fails, and nothing is deleted."""

        def __init__(self):
            self.batches = []

        def submit_get(self, space, keys, buffers, **how):
            self.batches.append((len(self.batches), len(keys)))
            return self.batches[-1][0]

        def submit_delete(self, *given):
            raise ValueError("no")

        def wait(self, *given):
            done, self.batches = self.batches, []
            return [(batch, [SimpleNamespace(status="failed", reason="")] * count)
                    for batch, count in done]

    mover._gets = Failing()
    mover.load([Load("r", NAMES, [0, 1, 2, 3])], space)
    assert mover.end_loads() == dict.fromkeys(range(4), "failed")
    mover._gets = gets


def test_a_job_of_the_tier_that_is_not_taken_ends(store_path):
    """vLLM has the job on its list: an exception would leave it there for ever."""
    rig = Rig([hearth_tier(store_path)])
    queue = rig.tier._queue

    class Refusing:
        def __getattr__(self, name):
            return getattr(queue, name)

        def submit_rows(self, *given, **more):
            raise ValueError("rows must be numbers")

    rig.tier._queue = Refusing()
    rig.store(keys(4))  # returns when nothing is under way
    rig.tier._queue = queue
    rig.store(keys(4, "more"))
    assert rig.check(keys(4, "more")) == 4
    rig.close()


@pytest.mark.parametrize("name", ["ttl_seconds", "cap_bytes"])
def test_parts_of_a_second_are_refused(name, store_path):
    with pytest.raises(options.ConfigurationError, match=f"{name} must be a whole number, not 0.5"):
        Rig([hearth_tier(store_path, **{name: 0.5})])


def test_whole_numbers():
    assert options.whole("X", "n", "3", 0, 9) == 3
    assert options.whole("X", "n", 2**62 - 1, 0, 2**62) == 2**62 - 1  # not by way of a float
    with pytest.raises(options.ConfigurationError, match="n must lie in"):
        options.whole("X", "n", 10, 0, 9)
    with pytest.raises(options.ConfigurationError, match="n must be a number"):
        options.whole("X", "n", True, 0, 9)


def test_a_second_user_with_other_options_is_refused(store_path):
    where = [str(store_path)]
    one = options.acquire("X", where, {**SMALL_STORE, "expected_block": ROW})
    try:
        with pytest.raises(options.ConfigurationError, match="capacity = '640MiB', not '1GiB'"):
            options.acquire("X", where, {**SMALL_STORE, "capacity": "1GiB"})
        with pytest.raises(options.ConfigurationError, match="mode = None, not 'store'"):
            options.acquire("X", where, {**SMALL_STORE, "mode": "store"})
        # What a block's size suggests may differ.
        assert options.acquire("X", where, {**SMALL_STORE, "expected_block": 4096}) is one
        options.release(one)
    finally:
        options.release(one)
    began = time.monotonic()
    two = options.acquire("X", where, {**SMALL_STORE, "memory": "128MiB"})  # free again
    options.release(two)
    assert time.monotonic() - began < 60
