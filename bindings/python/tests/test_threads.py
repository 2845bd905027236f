"""Threads: everything from everywhere at once, and the GIL given up where it must be."""

import random
import signal
import threading
import time

import pytest

import hearth
from conftest import BLOCK, SMALL, Space


def run(work, count):
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert failures == []


def test_random_calls_from_many_threads(space, store):
    keys = space.keys(200)

    def work(number):
        dice = random.Random(number)
        queue = store.queue(dice.choice([1, 8, 64]))
        for _ in range(60):
            part = dice.sample(keys, dice.randint(1, 40))
            buffers = [bytearray(2000) for _ in part]
            kind = dice.randrange(6)
            if kind == 0:
                space.ns.put(part, [space.payload(key, length=2000) for key in part])
                continue
            if kind == 1:
                space.ns.delete(part[:3])
                continue
            if kind == 2:
                space.ns.prefix(part), space.ns.contains_many(part)
                continue
            if kind == 3:
                queue.submit_get(space.ns, part, buffers)
                [(_, results)] = queue.wait()
            else:
                results = space.ns.get(part, buffers, mode=dice.choice(["direct", "cached"]))
            for key, buffer, result in zip(part, buffers, results):
                assert result.status in ("hit", "miss")
                if result.ok:
                    assert buffer == space.payload(key, length=2000)
        queue.close()

    run(work, 8)


def test_waiting_gives_up_the_gil(space):
    """While one thread waits for durable puts, another counts."""
    counted, done = 0, threading.Event()

    def count():
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    values = [bytes([n]) * (1 << 20) for n in range(64)]
    begun, before = time.monotonic(), counted
    space.ns.put(space.keys(64), values, durability="durable")
    took, rounds = time.monotonic() - begun, counted - before
    done.set()
    thread.join()
    assert rounds > took * 1000, f"{rounds} rounds in {took:.3f} s"


def test_close_while_others_work(tmp_path):
    """Each call ends with results or ClosedError; none hangs, none crashes."""
    store = hearth.open(tmp_path, **SMALL)
    space = Space(store)
    keys = space.fill(32)
    started = threading.Barrier(7)

    def sync(number):
        started.wait()
        while True:
            buffers = [bytearray(BLOCK) for _ in keys]
            try:
                results = space.ns.get(keys, buffers)
            except hearth.ClosedError:
                return
            for key, buffer, result in zip(keys, buffers, results):
                assert not result.ok or buffer == space.payload(key)

    def queued(number):
        queue = store.queue(8)
        started.wait()
        try:
            while True:
                queue.submit_get(space.ns, keys, [bytearray(BLOCK) for _ in keys])
                queue.wait()
        except hearth.ClosedError:
            return

    def work(number):
        if number == 6:
            started.wait()
            time.sleep(0.05)
            store.close()
            store.close()
        else:
            (sync if number % 2 else queued)(number)

    run(work, 7)
    assert store.closed


def test_queues_closed_while_others_wait(store, space):
    keys = space.fill(32)
    for _ in range(20):
        queue = store.queue(4)
        buffers = [bytearray(BLOCK) for _ in keys]
        queue.submit_get(space.ns, keys, buffers)

        def wait():
            try:
                while queue.pending:
                    queue.wait(5)
            except hearth.ClosedError:
                pass

        def work(number):
            (wait if number else queue.close)()

        run(work, 3)
        for buffer in buffers:
            buffer.append(0)


def test_interrupting_a_wait(space):
    """Ctrl-C ends a call that waits; the batch is cancelled, its memory free."""
    keys = space.keys(64)
    value = bytearray(1 << 20)

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    interrupted = 0
    try:
        for _ in range(30):
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            try:
                space.ns.put(keys * 4, [value] * 256, durability="durable", replace=True)
            except Stop:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            value.append(0)
            value.pop()
            if interrupted == 3:
                break
    except Stop:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 0
    assert space.ns.put([b"after"], [b"works"])[0].ok


def test_registering_in_threads(store):
    def work(number):
        for _ in range(20):
            region = store.register(bytearray(8192))
            del region

    run(work, 4)


@pytest.mark.parametrize("count", [40])
def test_more_calls_at_once_than_queues_are_kept(space, count):
    keys = space.fill(4)

    def work(number):
        buffers = [bytearray(BLOCK) for _ in keys]
        space.check(keys, buffers, space.ns.get(keys, buffers))

    run(work, count)
