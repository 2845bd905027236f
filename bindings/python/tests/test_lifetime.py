"""What is held while work is under way, and let go when it is not; nothing leaks."""

import gc
import mmap
import os
import sys
import time

import pytest

import hearth
from conftest import BLOCK, SMALL, Space


def test_buffers_are_held_until_drained(store, space):
    queue = store.queue()
    [key] = space.fill(1)
    target, source = bytearray(BLOCK), bytearray(space.payload(key, 1))
    queue.submit_get(space.ns, [key], [target])
    queue.submit_put(space.ns, [b"other"], [source])
    for buffer in (target, source):
        with pytest.raises(BufferError):
            buffer.append(0)
    while queue.pending:
        queue.wait()
    target.append(0)
    source.append(0)
    queue.close()


class Tracked(bytearray):
    """Tells when it goes."""

    gone = 0

    def __del__(self):
        Tracked.gone += 1


@pytest.mark.parametrize("end", ["close", "drop", "store"])
@pytest.mark.parametrize("kind", ["get", "put"])
def test_work_under_way_when_the_queue_goes(tmp_path, end, kind):
    """The queue is closed, dropped, or its store closed, over and over, in the middle of transfers.
    Nothing writes to memory afterwards, and all of it is let go."""
    with hearth.open(tmp_path, **SMALL) as store:
        space = Space(store)
        keys = space.fill(64)
        Tracked.gone, made = 0, 0
        for _ in range(1 if end == "store" else 20):
            queue = store.queue(32)
            for batch in range(4):
                buffers = [Tracked(BLOCK) for _ in keys]
                made += len(buffers)
                if kind == "get":
                    queue.submit_get(space.ns, keys, buffers)
                else:
                    queue.submit_put(space.ns, keys, buffers, replace=True)
                kept = buffers if batch == 0 else None
            first = kept or buffers
            if end == "drop":
                del queue
            else:
                (store if end == "store" else queue).close()
            for buffer in first:  # exported no more: it may be resized
                buffer.append(0)
                buffer.pop()
            before = [bytes(buffer) for buffer in first]
            time.sleep(0.002)
            assert before == [bytes(buffer) for buffer in first]
            del first, buffers, buffer, kept, before
        gc.collect()
        assert Tracked.gone == made


def test_memory_may_be_unmapped_after_close(store, space):
    """Raw memory, which nothing but the caller keeps: close waits until it is free."""
    import ctypes
    keys = space.fill(64)
    for _ in range(20):
        memory = mmap.mmap(-1, 64 * BLOCK)
        exported = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(exported)
        del exported
        queue = store.queue()
        queue.submit_get(space.ns, keys, [(address + i * BLOCK, BLOCK) for i in range(64)])
        queue.close()
        memory.close()  # a late write would be a crash


def test_cycles_with_a_store_are_collected(tmp_path):
    store = hearth.open(tmp_path, **SMALL)

    async def use():
        space = Space(store)
        await space.ns.aput([b"k"], [b"v"])

    import asyncio
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())  # the store has a lane now, whose queue has the store
    with pytest.warns(ResourceWarning, match="not closed"):
        del store
        gc.collect()
    loop.close()
    hearth.open(tmp_path, **SMALL).close()


def references():
    gc.collect()
    return sys.getrefcount(None), sys.getrefcount(True), sys.getrefcount(hearth.Result)


def rss():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nothing_leaks(store, space):
    """References to shared objects and the process's memory stay where they are over thousands of
    calls, right and wrong ones."""
    keys = space.fill(16, length=4096)
    buffers = [bytearray(4096) for _ in keys]
    queue = store.queue()
    region = store.register(bytearray(1 << 16))

    def everything():
        space.ns.get(keys, buffers)
        space.ns.get(keys, [[b] for b in buffers], mode="cached", timeout=5)
        space.ns.put(keys, buffers, parents=[None] * 16, shard_lengths=[4096])
        space.ns.put([b"x"], [[b"a", b"b"]], shard_lengths=[1, 1], replace=True)
        space.ns.contains_many(keys), space.ns.prefix(keys), space.ns.contains(keys[0])
        space.ns.read(keys[0]), space.ns.read(b"absent"), list(space.ns.list())
        space.ns.touch(keys), space.ns.pin(keys, 1), space.ns.unpin(keys)
        queue.submit_rows("get", space.ns, keys, region, list(range(16)), 4096, 4096)
        queue.submit_get(space.ns, keys, [region[i * 4096:(i + 1) * 4096] for i in range(16)])
        queue.cancel(queue.submit_delete(space.ns, [b"y"]))
        while queue.pending:
            queue.wait()
        store.statistics(), store.prometheus(), store.durable_version
        store.hint("chain", space=space.ns, keys=keys)
        store.register(bytearray(4096)).unregister()
        store.queue(4).close()
        for wrong in (
            lambda: space.ns.get(keys, buffers[:-1] + [5]),
            lambda: space.ns.get(keys + [b""], buffers * 2),
            lambda: space.ns.get([b"k"], [(region, 0, 1 << 20)]),
            lambda: space.ns.put(keys, buffers, parents=[5] * 16),
            lambda: queue.submit_rows("get", space.ns, keys, region, [99] * 16, 4096, 4096),
            lambda: store.hint("chain", space=space.ns, keys=[5]),
            lambda: store.namespace({"a": 5}), lambda: store.register(b"read-only"),
        ):
            with pytest.raises((TypeError, ValueError, BufferError)):
                wrong()

    for _ in range(100):
        everything()
    before, memory = references(), rss()
    for _ in range(200):
        everything()
    after, grown = references(), rss() - memory
    assert all(abs(a - b) < 50 for a, b in zip(after, before)), (before, after)
    # What was freed stays with the sanitizer for a while.
    assert "HEARTH_TEST_SANITIZER" in os.environ or grown < 16 << 20, f"{grown >> 20} MiB"
    queue.close()
    region.unregister()
