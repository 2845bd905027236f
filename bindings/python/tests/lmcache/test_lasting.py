"""What lasts and what does not: restart, kill, damage, eviction, locks."""

import glob
import itertools
import multiprocessing
import os
import signal
import time

import pytest
from lmcache.v1.distributed.config import EvictionConfig
from lmcache.v1.distributed.storage_controllers.eviction_controller import (
    L2AdapterEvictionState,
    L2EvictionController,
)
from lmcache_support import Machine, make_key, wait_for
from test_plugin import Listener

BLOCK = 64 << 10
LARGE = 1 << 20


def recovered(driver):
    wait_for(lambda: driver.adapter.report_status()["recovered"], what="recovery")


@pytest.mark.parametrize("kind", ["plugin", "native_plugin"])
def test_restart(machine, kind):
    driver = machine.open(kind)
    keys = driver.fill(50) + driver.fill(10, model="second", salt="s")
    driver.adapter.close()
    driver = machine.open(kind)
    assert driver.lookup(keys) == [True] * 60
    assert driver.load(keys, [BLOCK] * 60) == [True] * 60


def test_usage_and_listing_after_a_restart(machine):
    driver = machine.open()
    keys = driver.fill(50) + driver.fill(10, model="second", salt="s")
    driver.adapter.close()
    driver = machine.open()
    early = Listener()
    driver.adapter.register_listener(early)
    recovered(driver)
    usage = driver.adapter.get_usage()
    assert usage.total_bytes_used == 60 * BLOCK
    assert dict(usage.bytes_by_cache_salt) == {"": 50 * BLOCK, "s": 10 * BLOCK}
    late = Listener()
    driver.adapter.register_listener(late)
    assert set(early.stored) == set(late.stored) == set(keys)
    listed = driver.adapter.list_l2_keys(page_size=1000)
    assert {entry.key.to_object_key() for entry in listed.entries} == set(keys)
    driver.adapter.delete(keys)
    assert driver.adapter.get_usage().total_bytes_used == 0


def store_until_killed(folder, kind, told):
    driver = Machine(folder).open(kind)
    for number in itertools.count():
        part = [make_key(number * 8 + place) for place in range(8)]
        assert driver.store(part, [256 << 10] * 8).is_successful()
        told.send(number)


@pytest.fixture(scope="module")
def processes():
    """Processes that need not each import LMCache, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    # Only what is installed: the server does not look beside this file.
    context.set_forkserver_preload([
        "pytest", "hearth.lmcache.adapter", "lmcache.v1.distributed.l2_adapters",
        "lmcache.v1.distributed.storage_controllers.eviction_controller"])
    return context


@pytest.mark.parametrize("kind", ["plugin", "native_plugin"])
@pytest.mark.parametrize("stores", [1, 12, 30])
def test_killed_in_the_middle_of_a_store(machine, processes, kind, stores):
    told, tells = processes.Pipe(duplex=False)
    child = processes.Process(target=store_until_killed, args=(machine.folder, kind, tells))
    child.start()
    tells.close()
    try:
        said = [told.recv() for _ in range(stores)]
        time.sleep(0.003)  # into the next one
    finally:
        child.kill()
        child.join()
    assert said[-1] == stores - 1 and child.exitcode == -signal.SIGKILL
    driver = machine.open(kind)
    if kind == "plugin":
        recovered(driver)
    keys = [make_key(number) for number in range(8 * (stores + 3))]
    there = []
    for start in range(0, len(keys), 32):
        part = keys[start:start + 32]
        found = driver.lookup(part)
        # Every hit is checked against its payload: what was cut short is a miss.
        assert driver.load(part, [256 << 10] * len(part)) == found
        there += found
    # What was answered had been written; a kill of the process loses none of it.
    assert all(there[:8 * stores])
    assert driver.fill(4, first=100_000)


@pytest.mark.parametrize("kind", ["plugin", "native_plugin"])
def test_damage_is_a_miss_never_data(machine, kind):
    driver = machine.open(kind)
    keys = driver.fill(64)
    driver.adapter.close()
    flipped = 0
    for path in sorted(glob.glob(str(machine.folder / "store" / "segment-*"))):
        descriptor = os.open(path, os.O_RDWR)
        try:
            # One byte in every other block's worth of the file, past its header.
            for at in range(8192 + 777, 16 << 20, 2 * BLOCK):
                byte = os.pread(descriptor, 1, at)
                if byte and byte != b"\0":
                    os.pwrite(descriptor, bytes([byte[0] ^ 0x10]), at)
                    flipped += 1
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    assert flipped > 10
    driver = machine.open(kind)
    loaded = driver.load(keys, [BLOCK] * 64)  # compares what came
    assert 0 < loaded.count(False) < 64
    again = driver.lookup(keys)
    assert [there for there, good in zip(again, loaded) if not good] == [False] * loaded.count(
        False), "a block that failed its check is still said to be there"
    lost = [key for key, good in zip(keys, loaded) if not good]
    assert driver.store(lost, [BLOCK] * len(lost)).is_successful()
    assert all(driver.load(keys, [BLOCK] * 64))


def test_a_removed_segment_is_a_miss(machine):
    driver = machine.open()
    keys = driver.fill(64, length=LARGE)
    driver.adapter.close()
    sizes = {path: os.stat(path).st_blocks
             for path in glob.glob(str(machine.folder / "store" / "segment-*"))}
    os.unlink(max(sizes))
    os.unlink(min(sizes))
    driver = machine.open()
    loaded = []
    for start in range(0, 64, 16):
        loaded += driver.load(keys[start:start + 16], [LARGE] * 16)
    assert loaded.count(False) > 0
    assert driver.fill(4, first=1000)


def test_the_stores_own_eviction_reaches_usage(machine):
    driver = machine.open()
    listener = Listener()
    driver.adapter.register_listener(listener)
    keys = []
    for first in range(0, 1200, 40):  # 1,200 MiB through 640
        keys += driver.fill(40, length=LARGE, first=first)
    there = [any(driver.lookup([key])) for key in keys]
    assert not all(there) and there[-40:] == [True] * 40
    wait_for(lambda: driver.adapter.get_usage().total_bytes_used == there.count(True) * LARGE,
             what="usage that matches the store")
    assert set(listener.deleted) == {key for key, is_there in zip(keys, there) if not is_there}


def test_lmcaches_eviction_controller(machine):
    driver = machine.open(max_capacity_gb=0.05)  # 51.2 MiB
    config = EvictionConfig("LRU", trigger_watermark=0.8, eviction_ratio=0.25)
    controller = L2EvictionController([L2AdapterEvictionState(0, driver.adapter, config)])
    try:
        keys = [key for first in range(0, 48, 4)
                for key in driver.fill(4, length=LARGE, first=first)]
        locked = keys[:4]  # the first that the policy would take
        assert driver.lookup(locked) == [True] * 4
        controller.start()
        wait_for(lambda: driver.adapter.get_usage().usage_fraction < 0.8, what="eviction")
        assert driver.adapter.report_status()["delete_refused_locked"] >= 4
        assert driver.load(locked, [LARGE] * 4) == [True] * 4
        usage = driver.adapter.get_usage().total_bytes_used
        there = driver.lookup(keys)
        assert usage == there.count(True) * LARGE and 4 < there.count(True) < 42
        assert there[-20:] == [True] * 20  # the least recently used went
        driver.adapter.submit_unlock(keys)
    finally:
        controller.stop()


def test_a_lock_holds_through_eviction(machine):
    driver = machine.open(lock_seconds=2)
    first = driver.fill(30, length=LARGE)
    locked, free = first[:15], first[15:]
    assert driver.lookup(locked) == [True] * 15
    assert driver.lookup(locked[:5]) == [True] * 5  # a second lock on these
    status = driver.adapter.report_status
    wait_for(lambda: status()["pinned_blocks"] >= 15, what="pins")
    for start in range(0, 1400, 40):
        driver.fill(40, length=LARGE, first=1000 + start)
    time.sleep(3)  # past lock_seconds: renewed
    for start in range(0, 700, 40):
        driver.fill(40, length=LARGE, first=9000 + start)
    assert driver.load(free, [LARGE] * 15) == [False] * 15
    assert driver.load(locked, [LARGE] * 15) == [True] * 15
    assert status()["pins_refused"] == 0
    driver.adapter.submit_unlock(locked)
    wait_for(lambda: status()["pinned_blocks"] <= 6, what="the unlocked to be unpinned")
    assert status()["locked_keys"] == 5
    driver.adapter.submit_unlock(locked)
    driver.adapter.submit_unlock(locked)  # once too often: nothing
    assert status()["locked_keys"] == 0


def test_forgotten_locks_end(machine):
    driver = machine.open(lock_seconds=1, lock_limit_seconds=1)
    keys = driver.fill(3)
    driver.lookup(keys)
    status = driver.adapter.report_status
    wait_for(lambda: status()["locks_forgotten"] == 3, what="the limit")
    assert status()["locked_keys"] == 0
    driver.adapter.submit_unlock(keys)


def test_time_to_live(machine):
    driver = machine.open(ttl_seconds=1)
    keys = driver.fill(3)
    time.sleep(3)
    assert driver.load(keys, [BLOCK] * 3) == [False] * 3
