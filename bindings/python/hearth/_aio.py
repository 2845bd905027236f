"""asyncio: a batch is a future of the running loop.

Each loop has one queue a store, its lane, whose descriptor the loop watches while batches are under
way. A batch given up (its future cancelled) stays in the queue until the store has let go of its
memory; so does one whose loop has gone. A store holds its lanes and drops those of loops that are
closed.
"""

import asyncio
import os
import weakref

from hearth import _hearth
from hearth._types import ClosedError


def _closed():
    error = ClosedError("the store is closed")
    error.code, error.name = -10, "HEARTH_E_CLOSED"
    return error


class _Lane:
    """One loop's queue. Used by the loop's thread alone; holds no reference to the loop, which
    holds the lane by its descriptor while it is watched."""

    def __init__(self, store):
        self.queue = store.queue()
        # A descriptor of its own: the loop may watch it after another thread closed the queue.
        self.descriptor = os.dup(self.queue.fileno())
        self.futures = {}
        weakref.finalize(self, os.close, self.descriptor).atexit = False

    def run(self, submit, arguments, how):
        loop = asyncio.get_running_loop()
        number = submit(self.queue, *arguments, **how)
        future = loop.create_future()
        if not self.futures:
            loop.add_reader(self.descriptor, self.ready)
        self.futures[number] = future
        future.add_done_callback(lambda done: self.done(number, done))
        return future

    def done(self, number, future):
        if future.cancelled() and number in self.futures:
            try:
                self.queue.cancel(number)
            except ClosedError:
                pass

    def ready(self):
        try:
            batches = self.queue.drain()
        except Exception as error:  # closed, or forked: what waits must know
            self.fail(error)
            return
        for number, results in batches:
            future = self.futures.pop(number, None)
            if future is not None and not future.done():
                future.set_result(results)
        if not self.futures:
            asyncio.get_running_loop().remove_reader(self.descriptor)

    def fail(self, error):
        futures, self.futures = self.futures, {}
        if futures:
            asyncio.get_running_loop().remove_reader(self.descriptor)
        for future in futures.values():
            if not future.done():
                future.set_exception(error)


class Lanes:
    """A store's lanes, by loop. Used by the threads of all of them: each step on the dictionary is
    one that the interpreter does not divide."""

    def __init__(self):
        self.by_loop = weakref.WeakKeyDictionary()

    def loops(self):
        loops = [reference() for reference in self.by_loop.keyrefs()]
        return [loop for loop in loops if loop is not None]

    def of(self, store):
        loop = asyncio.get_running_loop()
        lane = self.by_loop.get(loop)
        if lane is None:
            for other in self.loops():
                if other.is_closed():
                    self.by_loop.pop(other, None)
            lane = self.by_loop[loop] = _Lane(store)
        return lane

    def close(self):
        """The store is closed: by whichever thread, each loop tells those who wait in it."""
        for loop in self.loops():
            lane = self.by_loop.pop(loop, None)
            if lane is not None and not loop.is_closed():
                try:
                    loop.call_soon_threadsafe(lane.fail, _closed())
                except RuntimeError:  # closed in this moment
                    pass


def _run(space, submit, arguments, how):
    store = space.store
    lanes = store._lanes
    if store.closed or lanes is None:
        raise _closed()
    return lanes.of(store).run(submit, (space, *arguments), how)


async def aget(self, keys, buffers, **how):
    """get, awaited. `how` is as there."""
    return await _run(self, _hearth.Queue.submit_get, (keys, buffers), how)


async def aput(self, keys, buffers, **how):
    """put, awaited. `how` is as there."""
    return await _run(self, _hearth.Queue.submit_put, (keys, buffers), how)


async def adelete(self, keys, **how):
    """delete, awaited. `how` is as there."""
    return await _run(self, _hearth.Queue.submit_delete, (keys,), how)
