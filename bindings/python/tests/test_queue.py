"""Queues: batches under way, drained whole, in any number, by any thread."""

import array
import select
import threading
import time

import numpy
import pytest

import hearth
from conftest import BLOCK, SMALL, Space


@pytest.fixture
def queue(store):
    queue = store.queue(64)
    yield queue
    queue.close()


def drained(queue, timeout=60):
    """Everything pending, by number."""
    done, end = {}, time.monotonic() + timeout
    while queue.pending:
        assert time.monotonic() < end
        for number, results in queue.wait(1):
            assert number not in done
            done[number] = results
    return done


def test_get_put_delete(queue, space):
    keys = space.keys(20)
    values = [space.payload(key) for key in keys]
    put = queue.submit_put(space.ns, keys, values, durability="durable")
    assert queue.pending == 1
    [(number, results)] = queue.wait()
    assert number == put and [r.status for r in results] == ["stored"] * 20
    assert queue.pending == 0 and queue.drain() == []
    buffers = [bytearray(BLOCK) for _ in keys]
    get = queue.submit_get(space.ns, keys, buffers, mode="cached", timeout=60)
    [(number, results)] = queue.wait(timeout=60)
    assert number == get
    space.check(keys, buffers, results)
    delete = queue.submit_delete(space.ns, keys)
    assert len({put, get, delete}) == 3
    assert [r.status for r in drained(queue)[delete]] == ["deleted"] * 20


def test_by_keyword(queue, space):
    number = queue.submit_put(space=space.ns, keys=[b"k"], buffers=[b"v"], replace=True)
    assert drained(queue)[number][0].ok
    queue.submit_delete(keys=[b"k"], space=space.ns)
    drained(queue)


def test_more_than_the_capacity(store, space):
    queue = store.queue(capacity=3)
    keys = space.keys(300)
    values = [space.payload(key, length=500) for key in keys]
    numbers = [queue.submit_put(space.ns, keys[i:i + 30], values[i:i + 30])
               for i in range(0, 300, 30)]
    assert queue.pending == 10
    done = drained(queue)
    assert sorted(done) == numbers
    assert all(r.ok for results in done.values() for r in results)
    buffers = [bytearray(500) for _ in keys]
    number = queue.submit_get(space.ns, keys, buffers)
    space.check(keys, buffers, drained(queue)[number], 500)
    queue.close()


def test_more_than_the_capacity_by_the_descriptor(store, space):
    """Who only looks at the descriptor gets everything handed on, too."""
    queue = store.queue(2)
    keys = space.fill(100, length=500)
    buffers = [bytearray(500) for _ in keys]
    for index in range(0, 100, 25):
        queue.submit_get(space.ns, keys[index:index + 25], buffers[index:index + 25])
    count = 0
    while queue.pending:
        assert select.select([queue.fileno()], [], [], 30)[0]
        for _, results in queue.drain():
            assert {r.status for r in results} == {"hit"}
            count += 1
    assert count == 4
    assert all(b == space.payload(k, length=500) for k, b in zip(keys, buffers))
    queue.close()


def test_descriptor(queue, space):
    descriptor = queue.fileno()
    assert select.select([descriptor], [], [], 0)[0] == []
    queue.submit_put(space.ns, [b"k"], [b"v"])
    assert select.select([descriptor], [], [], 30)[0] == [descriptor]
    assert len(queue.drain()) == 1
    assert select.select([descriptor], [], [], 0)[0] == []


def test_wake(queue, space):
    """It is readable once, however often woken, and what has ended is drained as ever."""
    for _ in range(3):
        queue.wake()
    assert select.select([queue.fileno()], [], [], 0)[0]
    assert queue.drain() == [] and select.select([queue.fileno()], [], [], 0)[0] == []
    queue.submit_put(space.ns, [b"k"], [b"v"])
    queue.wake()
    assert [one.status for _, results in queue.wait(30) for one in results] == ["stored"]


def test_empty_batches_end_like_others(queue, space):
    numbers = [queue.submit_get(space.ns, [], []), queue.submit_put(space.ns, [], []),
               queue.submit_delete(space.ns, [])]
    assert select.select([queue.fileno()], [], [], 30)[0]
    assert drained(queue) == {number: [] for number in numbers}


def test_wait_with_nothing_under_way_returns(queue):
    assert queue.wait() == [] and queue.wait(10) == [] and queue.drain() == []


def test_wait_ends_at_its_timeout(tmp_path):
    """Without a batch that has ended it gives nothing, and the batch later."""
    with hearth.open(tmp_path, **SMALL) as store:
        space, queue = Space(store), store.queue()
        queue.submit_put(space.ns, space.keys(64), [bytes(1 << 20)] * 64, durability="durable")
        begun = time.monotonic()
        first = queue.wait(timeout=1e-6)
        assert time.monotonic() - begun < 1
        assert len(first) + len(drained(queue)) == 1


@pytest.mark.parametrize("arguments,error", [
    ((-1,), ValueError), ((0,), ValueError), (((1 << 20) + 1,), ValueError), (("8",), TypeError),
    ((1, 2), TypeError),
])
def test_wrong_capacity(store, arguments, error):
    with pytest.raises(error):
        store.queue(*arguments)


def test_wrong_arguments(queue, space):
    for call, error in (
        (lambda: queue.submit_get(5, [b"k"], [bytearray(1)]), TypeError),
        (lambda: queue.submit_get(space.ns, [b"k"], [b"read-only"]), BufferError),
        (lambda: queue.submit_get(space.ns, [b"k"], [bytearray(1)], replace=True), TypeError),
        (lambda: queue.submit_put(space.ns, [b""], [b"v"]), ValueError),
        (lambda: queue.submit_delete(space.ns, b"k"), TypeError),
        (lambda: queue.wait(-1), ValueError),
        (lambda: queue.cancel("x"), TypeError),
        (lambda: queue.cancel(-1), ValueError),
    ):
        with pytest.raises(error):
            call()
    assert queue.pending == 0
    queue.cancel(123456)  # not under way (any more): nothing


def test_cancel(store, space):
    """A cancelled batch is drained still; each of its operations says how it came out, and the
    memory is free then."""
    queue = store.queue(4)
    keys = space.fill(64)
    buffers = [bytearray(BLOCK) for _ in range(64)]
    first = queue.submit_get(space.ns, keys, buffers)
    second = queue.submit_get(space.ns, keys, [bytearray(BLOCK) for _ in keys])
    third = queue.submit_get(space.ns, keys[:4], buffers[:4])
    queue.cancel(second)  # wholly in the backlog
    queue.cancel(first)   # partly
    done = drained(queue)
    assert sorted(done) == [first, second, third]
    assert {r.status for r in done[second]} == {"cancelled"}
    assert {r.status for r in done[first]} <= {"cancelled", "hit"}
    assert {r.status for r in done[third]} == {"hit"}
    assert "cancelled" in {r.status for r in done[first]}
    for key, buffer, result in list(zip(keys, buffers, done[first]))[4:]:
        assert not result.ok or buffer == space.payload(key)
        buffer.append(0)  # let go
    queue.close()


@pytest.mark.parametrize("rows", [
    lambda r: r, tuple, lambda r: numpy.array(r, numpy.int32),
    lambda r: numpy.array(r, numpy.int64), lambda r: numpy.array(r, numpy.uint64),
    lambda r: numpy.repeat(r, 3)[::3],
    lambda r: array.array("i", r), lambda r: numpy.array(r, numpy.int64)[::-1][::-1],
])
def test_rows(store, space, queue, rows):
    stride = 4096 + BLOCK
    memory = numpy.zeros(20 * stride, numpy.uint8)
    region = store.register(memory)
    order = [3, 0, 19, 7, 11]
    keys = space.keys(5)
    for key, row in zip(keys, order):
        block = numpy.frombuffer(space.payload(key), numpy.uint8)
        memory[row * stride:row * stride + BLOCK] = block
    before = memory.copy()
    put = queue.submit_rows("put", space.ns, keys, region, rows(order), stride, BLOCK,
                            durability="written")
    assert [r.status for r in drained(queue)[put]] == ["stored"] * 5
    memory[:] = 0
    get = queue.submit_rows("get", space.ns, keys, region, rows(order), stride, BLOCK)
    results = drained(queue)[get]
    assert [(r.status, r.delivered) for r in results] == [("hit", BLOCK)] * 5
    assert (memory == before).all()
    region.unregister()


@pytest.mark.parametrize("change,error,word", [
    ({"kind": "delete"}, ValueError, "kind"), ({"space": None}, TypeError, "space"),
    ({"region": bytearray(10)}, TypeError, "region"), ({"rows": [0]}, ValueError, "2 keys"),
    ({"rows": [0, 4]}, ValueError, "rows\\[1\\] is 4"), ({"rows": [0, -1]}, ValueError, "row"),
    ({"rows": numpy.array([0, -1])}, ValueError, "rows\\[1\\] is -1"),
    ({"rows": [0, 1 << 62]}, ValueError, "outside"), ({"rows": [0, 1 << 70]}, ValueError, "row"),
    ({"rows": [0, "1"]}, TypeError, "row"), ({"rows": 5}, TypeError, "rows"),
    ({"rows": numpy.zeros(2)}, TypeError, "int32"),
    ({"rows": numpy.zeros((2, 2), int)}, TypeError, "dimensions"),
    ({"rows": numpy.zeros(2, ">i4")}, TypeError, "format"), ({"rows": b"ab"}, TypeError, "format"),
    ({"row_length": 8193}, ValueError, "outside"), ({"row_stride": -1}, ValueError, "row_stride"),
    ({"row_stride": 1 << 63}, ValueError, "outside"), ({"durability": "written"}, TypeError, "get"),
])
def test_wrong_rows(store, space, queue, change, error, word):
    region = store.register(bytearray(8192))
    arguments = {"kind": "get", "space": space.ns, "keys": [b"a", b"b"], "region": region,
                 "rows": [0, 1], "row_stride": 2048, "row_length": 2048, **change}
    with pytest.raises(error, match=word):
        queue.submit_rows(**arguments)
    assert queue.pending == 0
    region.unregister()


def test_a_region_in_use_stays(store, space):
    queue = store.queue()
    keys = space.fill(64)
    memory = bytearray(64 * BLOCK)
    region = store.register(memory)
    queue.submit_rows("get", space.ns, keys, region, range(64), BLOCK, BLOCK)
    with pytest.raises(BufferError, match="1 batches"):
        region.unregister()
    drained(queue)
    region.unregister()
    memory.append(0)
    queue.close()


def test_many_threads_drain_one_queue(store, space):
    queue = store.queue(16)
    keys = space.fill(32, length=2000)
    count, seen, lock = 200, [], threading.Lock()
    buffers = [[bytearray(2000) for _ in keys] for _ in range(8)]

    def work():
        while True:
            batches = queue.wait(0.1)
            with lock:
                seen.extend(number for number, _ in batches)
                if len(seen) == count:
                    return
            for _, results in batches:
                assert {r.status for r in results} == {"hit"}
            if not batches:
                time.sleep(0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    numbers = [queue.submit_get(space.ns, keys, buffers[i % 8]) for i in range(count)]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sorted(seen) == numbers and queue.pending == 0
    queue.close()


def test_a_late_cancel_hits_no_other_batch(store, space):
    """Cancelling is asked of another thread: what has ended by then is not mistaken for what was
    submitted since."""
    queue = store.queue()
    keys = space.fill(16, length=500)
    buffers = [bytearray(500) for _ in keys]
    for _ in range(500):
        first = queue.submit_get(space.ns, keys, [bytearray(500) for _ in keys])
        queue.cancel(first)
        done = {}
        while first not in done:
            done.update(queue.wait())
        second = queue.submit_get(space.ns, keys, buffers)
        space.check(keys, buffers, drained(queue)[second], 500)
    queue.close()


def test_without_memory_for_results_no_batch_is_lost(store, space):
    """Whichever allocation fails: what was not handed out stays, and the descriptor says so."""
    testing = pytest.importorskip("_testcapi")
    queue = store.queue()
    keys = space.fill(3, length=500)
    counts = {"none": 0, "some": 0, "all": 0}
    for allocation in range(100):
        buffers = [bytearray(500) for _ in range(9)]
        numbers = [queue.submit_get(space.ns, keys, buffers[i:i + 3]) for i in range(0, 9, 3)]
        assert select.select([queue.fileno()], [], [], 30)[0]
        time.sleep(0.002)  # for the others
        done = []
        testing.set_nomemory(allocation, allocation + 1)
        try:
            done = queue.drain()
        except MemoryError:
            pass
        finally:
            testing.remove_mem_hooks()
        counts["all" if len(done) == 3 else "some" if done else "none"] += 1
        assert queue.pending == 3 - len(done)
        while queue.pending:
            assert select.select([queue.fileno()], [], [], 30)[0]
            done += queue.drain()
        assert sorted(number for number, _ in done) == numbers
        for _, results in done:
            assert [r.status for r in results] == ["hit"] * 3
        for buffer, key in zip(buffers, keys * 3):
            assert buffer == space.payload(key, length=500)
            buffer.append(0)  # let go
    assert all(counts.values()), counts
    queue.close()
