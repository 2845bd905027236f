"""Opening and closing stores, and everything that must not be a crash after it."""

import gc
import os
import pathlib
import weakref

import pytest

import hearth
from conftest import SMALL, Space


def test_paths(tmp_path):
    for path in (str(tmp_path), pathlib.Path(tmp_path), [str(tmp_path)], f"dir:{tmp_path}"):
        with hearth.open(path, **SMALL) as store:
            assert not store.closed
        assert store.closed


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("store")
    hearth.open("store", **SMALL).close()
    assert os.listdir(tmp_path / "store")


def test_two_directories(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.mkdir()
    with hearth.open(paths, **{**SMALL, "capacity": "1GiB"}) as store:
        space = Space(store)
        keys = space.fill(8)
        buffers = [bytearray(65536) for _ in keys]
        space.check(keys, buffers, space.ns.get(keys, buffers))


@pytest.mark.parametrize("path,error", [
    ([], ValueError), ("/a,b", ValueError), ("/a\0b", ValueError), (5, TypeError),
    (None, TypeError), ("/proc/none/such", hearth.Error), ("unix:/tmp/socket", hearth.Error),
])
def test_wrong_paths(path, error):
    with pytest.raises(error):
        hearth.open(path, **SMALL)


@pytest.mark.parametrize("options,word", [
    ({}, "capacity"), ({"capacity": "much"}, "capacity"), ({"capcity": "1GiB"}, "capcity"),
    ({**SMALL, "mode": "cahe"}, "mode"), ({**SMALL, "max_block": -1}, "max_block"),
    ({**SMALL, "holder": "a\0b"}, "holder"),
])
def test_wrong_options_are_named(tmp_path, options, word):
    with pytest.raises((hearth.Error, ValueError), match=word):
        hearth.open(tmp_path, **options)


def test_none_is_left_out_and_booleans_are_numbers(tmp_path):
    with hearth.open(tmp_path, mode=None, allow_absent=False, **SMALL):
        pass
    with hearth.open(tmp_path, allow_absent=True, **SMALL):
        pass


def test_locked(tmp_path):
    with hearth.open(tmp_path, **SMALL):
        with pytest.raises(hearth.LockedError) as caught:
            hearth.open(tmp_path, **SMALL)
    assert caught.value.name == "HEARTH_E_LOCKED" and caught.value.code == -3
    assert isinstance(caught.value, hearth.Error)
    hearth.open(tmp_path, **SMALL).close()


def test_not_a_store(tmp_path):
    hearth.open(tmp_path, **SMALL).close()
    for path in tmp_path.rglob("*"):
        if path.is_file() and "manifest" in path.name.lower():
            path.write_bytes(os.urandom(path.stat().st_size))
    with pytest.raises(hearth.FormatError) as caught:
        hearth.open(tmp_path, open="strict", **SMALL)
    assert caught.value.name == "HEARTH_E_FORMAT"


def test_double_close(tmp_path):
    store = hearth.open(tmp_path, **SMALL)
    space, queue = Space(store).ns, store.queue()
    region = store.register(bytearray(8192))
    for _ in range(2):
        queue.close()
        space.close()
        region.unregister()
        store.close()
    assert store.closed


def test_use_after_close(tmp_path):
    store = hearth.open(tmp_path, **SMALL)
    space, queue = Space(store).ns, store.queue()
    region = store.register(bytearray(8192))
    store.close()
    calls = [
        store.__enter__, store.wait_recovered, store.flush, store.checkpoint, store.statistics,
        store.prometheus, lambda: store.durable_version, store.queue,
        lambda: store.namespace({"a": "b"}), lambda: store.register(bytearray(8192)),
        lambda: store.hint("progress"),
        lambda: space.contains(b"k"), lambda: space.contains_many([b"k"]),
        lambda: space.prefix([b"k"]), lambda: space.get([b"k"], [bytearray(1)]),
        lambda: space.put([b"k"], [b"v"]), lambda: space.delete([b"k"]),
        lambda: space.touch([b"k"]), lambda: space.pin([b"k"], 1), lambda: space.unpin([b"k"]),
        lambda: space.read(b"k"), lambda: list(space.list()), space.purge,
        queue.fileno, queue.wake, queue.drain, queue.wait, lambda: queue.cancel(0),
        lambda: queue.submit_get(space, [b"k"], [bytearray(1)]),
        lambda: queue.submit_put(space, [b"k"], [b"v"]),
        lambda: queue.submit_delete(space, [b"k"]),
        lambda: queue.submit_rows("get", space, [b"k"], region, [0], 1, 1),
    ]
    for call in calls:
        with pytest.raises(hearth.ClosedError):
            call()
    assert queue.pending == 0
    region.unregister()
    space.close()
    queue.close()


def test_use_after_close_of_the_namespace(store):
    space = Space(store).ns
    queue = store.queue()
    space.close()
    for call in (
        lambda: space.contains(b"k"), lambda: space.get([b"k"], [bytearray(1)]),
        lambda: queue.submit_get(space, [b"k"], [bytearray(1)]), lambda: list(space.list()),
        lambda: store.hint("touched", space=space, keys=[b"k"]),
    ):
        with pytest.raises(hearth.ClosedError, match="namespace"):
            call()
    queue.close()


def test_close_lets_go_of_regions(tmp_path):
    memory = bytearray(8192)
    store = hearth.open(tmp_path, **SMALL)
    region = store.register(memory)
    with pytest.raises(BufferError):
        memory.append(0)
    store.close()
    memory.append(0)
    del region


def test_a_dropped_store_is_closed_and_says_so(tmp_path):
    store = hearth.open(tmp_path, **SMALL)
    reference = weakref.ref(store)
    with pytest.warns(ResourceWarning, match="not closed"):
        del store
        gc.collect()
    assert reference() is None
    hearth.open(tmp_path, **SMALL).close()


def test_objects_keep_their_store(tmp_path):
    space = Space(hearth.open(tmp_path, **SMALL), "kept").ns
    gc.collect()
    assert space.put([b"k"], [b"v"])[0].ok
    assert not space.store.closed
    space.store.close()


def test_restart_keeps_blocks(tmp_path):
    with hearth.open(tmp_path, **SMALL) as store:
        space = Space(store, "restart")
        keys = space.fill(50)
        version = store.durable_version
        assert isinstance(version, int)
        store.flush()
        store.flush(through=1)
        assert store.durable_version >= 50
        store.checkpoint()
    with hearth.open(tmp_path, **SMALL) as store:
        store.wait_recovered()
        space = Space(store, "restart")
        assert space.ns.contains_many(keys) == [True] * 50
        buffers = [bytearray(65536) for _ in keys]
        results = space.ns.get(keys, buffers)
        space.check(keys, buffers, results)
        assert {r.tier for r in results} == {"device"}
        # Another namespace's blocks are not this one's, wherever the keys are the same.
        assert Space(store, "other").ns.contains_many(keys) == [False] * 50
