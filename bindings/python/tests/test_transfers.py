"""Batches that wait: what comes back is what was put, in order, and every way of asking."""

import os
import time

import pytest

import hearth
from conftest import BLOCK


@pytest.mark.parametrize("durability", ["volatile", "written", "durable"])
@pytest.mark.parametrize("mode", ["direct", "cached"])
def test_put_and_get(space, durability, mode):
    keys = space.keys(33)
    results = space.ns.put(keys, [space.payload(key) for key in keys], durability=durability)
    assert all(r.ok and r.status == "stored" and r.version > 0 for r in results)
    assert len({r.version for r in results}) == 33
    buffers = [bytearray(BLOCK) for _ in keys]
    got = space.ns.get(keys, buffers, mode=mode)
    space.check(keys, buffers, got)
    assert [r.version for r in got] == [r.version for r in results]
    assert all(r.tier in ("dram", "device") and r.reason == "" for r in got)


@pytest.mark.parametrize("length", [1, 2, 511, 4095, 4096, 4097, 65537, 1 << 20])
def test_any_length(space, length):
    keys = space.fill(2, length=length)
    buffers = [bytearray(length) for _ in keys]
    space.check(keys, buffers, space.ns.get(keys, buffers), length)
    # Larger ones are written no further than the block goes.
    large = [bytearray(b"\xee" * (length + 100)) for _ in keys]
    space.ns.get(keys, large)
    assert all(buffer[length:] == b"\xee" * 100 for buffer in large)


def test_results_are_in_the_order_of_keys(space):
    present, absent = space.fill(10), space.keys(10, "absent")
    keys = [key for both in zip(present, absent) for key in both]
    buffers = [bytearray(BLOCK) for _ in keys]
    results = space.ns.get(keys, buffers)
    assert [r.status for r in results] == ["hit", "miss"] * 10
    assert {r.reason for r in results[1::2]} == {"never-put"}
    for key, buffer in list(zip(keys, buffers))[::2]:
        assert buffer == space.payload(key)


def test_a_batch_larger_than_any_queue(space):
    keys = space.keys(5000)
    values = [space.payload(key, length=100) for key in keys]
    assert all(r.ok for r in space.ns.put(keys, values))
    buffers = [bytearray(100) for _ in keys]
    results = space.ns.get(keys, buffers)
    space.check(keys, buffers, results, 100)
    assert len(space.ns.delete(keys)) == 5000
    assert space.ns.contains_many(keys) == [False] * 5000


def test_same_key_twice_in_a_batch(space):
    [key] = space.fill(1)
    buffers = [bytearray(BLOCK), bytearray(BLOCK)]
    space.check([key, key], buffers, space.ns.get([key, key], buffers))


def test_put_again(space):
    [key] = space.fill(1)
    assert space.ns.put([key], [space.payload(key)])[0].status == "already-present"
    assert space.ns.put([key], [b"other length"])[0].status == "conflict"
    [result] = space.ns.put([key], [space.payload(key, 1)], replace=True)
    assert result.status == "stored"
    assert space.ns.read(key) == space.payload(key, 1)


def test_delete(space):
    keys = space.fill(2)
    results = space.ns.delete([keys[0], b"absent"])
    assert [r.status for r in results] == ["deleted", "not-found"]
    [result] = space.ns.get([keys[0]], [bytearray(BLOCK)])
    assert (result.status, result.ok) == ("miss", False)
    assert space.ns.contains(keys[1]) and not space.ns.contains(keys[0])


def test_expiry(space):
    key, other = space.keys(2)
    space.ns.put([key], [b"short-lived"], ttl_seconds=1)
    space.ns.put([other], [b"stays"])
    assert space.ns.read(key) == b"short-lived"
    time.sleep(2.1)
    [result] = space.ns.get([key], [bytearray(100)])
    assert (result.status, result.reason) == ("miss", "expired")
    assert space.ns.read(other) == b"stays"


def test_touch_pin_unpin(space):
    keys = space.fill(3)
    assert [r.status for r in space.ns.touch(keys)] == ["done"] * 3
    assert [r.status for r in space.ns.pin(keys, 10.5)] == ["done"] * 3
    assert [r.status for r in space.ns.unpin(keys)] == ["done"] * 3
    assert space.ns.pin(keys=keys, seconds=1)[0].ok


def test_read(space):
    key, empty = space.keys(2)
    value = space.payload(key, length=12345)
    space.ns.put([key], [value])
    assert space.ns.read(key) == value
    assert space.ns.read(key=empty) is None
    large = os.urandom(1 << 20)
    space.ns.put([b"large"], [large])
    assert space.ns.read(b"large") == large


def test_too_large_a_block(space):
    [result] = space.ns.put([b"k"], [bytes(2 << 20)])
    assert result.status == "too-large"
    assert space.ns.read(b"k") is None


def test_too_small_a_buffer_is_invalid(space):
    [key] = space.fill(1)
    small = bytearray(b"\xee" * 100)
    [result] = space.ns.get([key], [small])
    assert result.status == "invalid" and small == b"\xee" * 100


def test_shards(store):
    from conftest import Space
    for layout in ("packed", "aligned"):
        space = Space(store, f"shards-{layout}", layout=layout)
        lengths = [4096, 100, 8192, 1]
        [key] = space.keys(1)
        value = space.payload(key, length=sum(lengths))
        assert space.ns.put([key], [value], shard_lengths=lengths)[0].ok
        for first, count in ((0, 1), (1, 2), (3, 1), (0, 4)):
            start = sum(lengths[:first])
            length = sum(lengths[first:first + count])
            buffer = bytearray(length)
            [result] = space.ns.get([key], [buffer], shards=(first, count))
            assert result.status == "hit" and result.delivered == length
            assert result.length == sum(lengths)
            assert buffer == value[start:start + length]
        buffer = bytearray(200)
        [result] = space.ns.get([key], [buffer], byte_range=(4000, 200))
        assert result.delivered == 200 and buffer == value[4000:4200]
        assert [e.shard_count for e in space.ns.list()] == [4]
        # Another cut of the same bytes is another block.
        assert space.ns.put([key], [value], shard_lengths=[len(value)])[0].status == "conflict"
        assert space.ns.put([b"x"], [value], shard_lengths=[1, 2])[0].status == "invalid"
        space.ns.purge()


def test_many_shards_in_many_operations(space):
    """The shard table goes down once with each run of operations, not with each operation."""
    lengths = [16] * 64
    keys = space.keys(2500)
    values = [space.payload(key, length=1024) for key in keys]
    assert all(r.ok for r in space.ns.put(keys, values, shard_lengths=lengths))
    buffers = [bytearray(32) for _ in keys]
    results = space.ns.get(keys, buffers, shards=(7, 2))
    assert {r.status for r in results} == {"hit"}
    assert all(b == v[112:144] for b, v in zip(buffers, values))


def test_parents(space):
    keys = space.keys(4)
    parents = [None, *keys[:-1]]
    values = [space.payload(key) for key in keys]
    assert all(r.ok for r in space.ns.put(keys, values, parents=parents))
    assert space.ns.prefix(keys) == 4


def test_timeout(space):
    keys = space.fill(8)
    buffers = [bytearray(BLOCK) for _ in keys]
    space.check(keys, buffers, space.ns.get(keys, buffers, timeout=60))
    assert all(r.ok for r in space.ns.delete(keys, timeout=60.0))
    # Over at once: the call ends all the same, and says so or is a hit; never anything else.
    space.fill(8, prefix="more")
    results = space.ns.get(space.keys(8, "more"), buffers, timeout=1e-9)
    assert {r.status for r in results} <= {"timed-out", "hit"}


def test_empty_batches(space):
    ns = space.ns
    assert ns.get([], []) == ns.put([], []) == ns.delete([]) == ns.touch([]) == []
    assert ns.pin([], 1) == ns.unpin([]) == ns.contains_many([]) == []
    assert ns.prefix([]) == 0


@pytest.mark.parametrize("call,error,word", [
    (lambda ns: ns.get([b"k"], []), ValueError, "1 keys, but 0 buffers"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], mode="fast"), ValueError, '"direct", "cached"'),
    (lambda ns: ns.get([b"k"], [bytearray(1)], mode=1), TypeError, "mode"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], replace=True), TypeError, "replace"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], tiemout=1), TypeError, "tiemout"),
    (lambda ns: ns.get([b"k"]), TypeError, "'buffers' is missing"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], "direct"), TypeError, "by position"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], keys=[b"k"]), TypeError, "twice"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], timeout=-1), ValueError, "timeout"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], timeout=float("nan")), ValueError, "timeout"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], timeout="1"), TypeError, "timeout"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], shards=(0, 0)), ValueError, "shards"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], shards=3), TypeError, "shards"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], shards=(-1, 1)), ValueError, "shards"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], byte_range=(0, 0)), ValueError, "byte_range"),
    (lambda ns: ns.get([b"k"], [bytearray(1)], shards=(0, 1), byte_range=(0, 1)), ValueError,
     "together"),
    (lambda ns: ns.put([b"k"], [b"v"], durability="eternal"), ValueError, '"volatile"'),
    (lambda ns: ns.put([b"k"], [b"v"], parents=[]), ValueError, "parents"),
    (lambda ns: ns.put([b"k"], [b"v"], parents=["p"]), TypeError, "parents\\[0\\] is a str"),
    (lambda ns: ns.put([b"k"], [b"v"], shard_lengths=[]), ValueError, "shard_lengths"),
    (lambda ns: ns.put([b"k"], [b"v"], shard_lengths=[-1]), ValueError, "shard length"),
    (lambda ns: ns.put([b"k"], [b"v"], shard_lengths=[1 << 32]), ValueError, "shard length"),
    (lambda ns: ns.put([b"k"], [b"v"], ttl_seconds=-1), ValueError, "ttl_seconds"),
    (lambda ns: ns.put([b"k"], [b"v"], ttl_seconds=1 << 32), ValueError, "ttl_seconds"),
    (lambda ns: ns.put([b"k"], [b"v"], ttl_seconds=1.5), TypeError, "ttl_seconds"),
    (lambda ns: ns.put([b"k"], [b"v"], mode="direct"), TypeError, "mode"),
    (lambda ns: ns.delete([b"k"], durability="written"), TypeError, "durability"),
    (lambda ns: ns.touch([b"k"], timeout=1), TypeError, "timeout"),
    (lambda ns: ns.pin([b"k"], -1), ValueError, "seconds"),
    (lambda ns: ns.pin([b"k"]), TypeError, "'seconds' is missing"),
])
def test_wrong_arguments(space, call, error, word):
    with pytest.raises(error, match=word):
        call(space.ns)


def test_purge(store):
    from conftest import Space
    space = Space(store, "purged")
    keys = space.fill(5)
    space.ns.purge()
    with pytest.raises(hearth.ClosedError):
        space.ns.contains(keys[0])
    assert Space(store, "purged").ns.contains_many(keys) == [False] * 5


def test_list(space):
    keys = space.fill(700, length=100)
    entries = list(space.ns.list())
    assert sorted(e.key for e in entries) == sorted(keys)
    assert {(e.length, e.shard_count) for e in entries} == {(100, 1)}
    assert len({e.version for e in entries}) == 700
    assert type(entries[0]) is hearth.Entry


def test_eviction_and_misses_never_give_other_bytes(tmp_path):
    """Three times the capacity goes through a small store: each get is right, or a miss."""
    from conftest import Space
    with hearth.open(
            tmp_path, capacity="128MiB", max_block="128KiB", segment="8MiB",
            memory="128MiB", staging="32MiB") as store:
        space = Space(store)
        keys = space.keys(3 * 1024)
        for start in range(0, len(keys), 64):
            part = keys[start:start + 64]
            values = [space.payload(key, length=128 << 10) for key in part]
            while any(not r.ok for r in space.ns.put(part, values)):
                pass
        buffers = [bytearray(128 << 10) for _ in range(64)]
        counts = {"hit": 0, "miss": 0}
        for start in range(0, len(keys), 64):
            part = keys[start:start + 64]
            for key, buffer, result in zip(part, buffers, space.ns.get(part, buffers)):
                counts[result.status] += 1
                if result.ok:
                    assert buffer == space.payload(key, length=128 << 10)
        assert counts["hit"] > 300 and counts["miss"] > 1500
