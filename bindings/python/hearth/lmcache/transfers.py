"""Transfers: tasks of LMCache go in, each as batches of a Hearth queue, and come out whole.

The queue's own descriptor is what LMCache waits on: a completion wakes the controller that asked
for it, and no thread stands between. Whoever asks for finished tasks drains the queue. A put that
was throttled is submitted again after the time that the store named; one that found a block of
another length under its key replaces it, for that block's layout is not the engine's any more.
"""

import logging
import os
import threading
from collections.abc import Sequence

import hearth

logger = logging.getLogger(__name__)

# A put that is still throttled after so many tries has failed.
TRIES = 64
_SHORTEST_WAIT = 0.001
_LONGEST_WAIT = 0.25

PUT, GET, DELETE, LOOKUP = "put", "get", "delete", "lookup"


class Task:
    """One submission: its keys, what keeps its memory alive, and a result for each key."""

    __slots__ = (
        "number", "kind", "keys", "blocks", "sizes", "keeps", "results", "open", "tries", "error")

    def __init__(self, number: int, kind: str, keys: list, sizes: Sequence[int], keeps: object):
        self.number = number
        self.kind = kind
        self.keys = keys
        # Where each key's block is: its namespace and the key there; None for a key refused.
        self.blocks: list = [None] * len(keys)
        self.sizes = sizes
        self.keeps = keeps
        # A hearth.Result for each key; None for one that could not be submitted.
        self.results: list = [None] * len(keys)
        self.open = 0
        self.tries = 0
        self.error = ""

    def succeeded(self, place: int) -> bool:
        """Whether one key came out as was asked. A get of a block with another length has not:
        that block is of another layout."""
        result = self.results[place]
        if result is None:
            return False
        if self.kind == PUT:
            return result.status in ("stored", "already-present")
        if self.kind == GET:
            return (result.status == "hit"
                    and result.length == result.delivered == self.sizes[place])
        return result.status in ("deleted", "not-found")


class Transfers:
    """The batches under way of one queue. Safe from any thread."""

    def __init__(self, store, durability: str = "written"):
        self._queue = store.queue()
        self._durability = durability
        self._mutex = threading.Lock()
        # Batch number: its task, namespace, keys, buffers, and the places of its keys among the
        # task's (None: all of them).
        self._batches: dict[int, tuple] = {}
        self._done: list[Task] = []
        self._closed = False
        self.descriptor: int = self._queue.fileno()
        self.retried = 0
        self.replaced = 0

    @property
    def under_way(self) -> int:
        return len(self._batches)

    def signal(self) -> None:
        """Makes the descriptor readable."""
        with self._mutex:
            self._signal()

    def _signal(self) -> None:
        if not self._closed:  # the descriptor is the queue's, and may be another's by now
            os.eventfd_write(self.descriptor, 1)

    def start(self, task: Task, parts: Sequence[tuple]) -> None:
        """Submits a task as (namespace, keys, buffers, places); never waits for I/O. What cannot be
        submitted has no result. A task of no parts is finished at once."""
        with self._mutex:
            if self._closed:
                raise RuntimeError("the adapter is closed")
            task.open += 1  # so that it cannot finish before its last part is in
            for space, keys, buffers, places in parts:
                self._submit(task, space, keys, buffers, places)
            self._part_ended(task)

    def _submit(self, task, space, keys, buffers, places, replace: bool = False) -> None:
        try:
            if task.kind == PUT:
                batch = self._queue.submit_put(
                    space, keys, buffers, durability=self._durability, replace=replace)
            elif task.kind == GET:
                batch = self._queue.submit_get(space, keys, buffers)
            else:
                batch = self._queue.submit_delete(space, keys)
        except (hearth.Error, ValueError, TypeError, BufferError) as error:
            task.error = str(error)
            logger.error("Hearth: a %s of %d keys was not taken: %s", task.kind, len(keys), error)
            return
        task.open += 1
        self._batches[batch] = (task, space, keys, buffers, places)

    def _part_ended(self, task: Task) -> None:
        task.open -= 1
        if task.open == 0:
            self._done.append(task)
            self._signal()

    def collect(self) -> list[Task]:
        """The tasks that have ended since the last call."""
        with self._mutex:
            if not self._closed:
                for batch, results in self._queue.drain():
                    self._batch_ended(self._batches.pop(batch), results)
            done, self._done = self._done, []
        return done

    def _batch_ended(self, batch: tuple, results: list) -> None:
        task, space, keys, buffers, places = batch
        if places is None:
            task.results = results
        else:
            for place, result in zip(places, results):
                task.results[place] = result
        if task.kind == PUT:
            self._again(batch, results)
        task.open -= 1
        if task.open == 0:
            self._done.append(task)

    def _again(self, batch: tuple, results: list) -> None:
        """Submits anew what was throttled or found a block of another length."""
        task, space, keys, buffers, places = batch
        waiting, conflicts, wait = [], [], 0.0
        for index, result in enumerate(results):
            if result.status == "throttled":
                waiting.append(index)
                wait = max(wait, result.retry_ns / 1e9)
            elif result.status == "conflict":
                conflicts.append(index)
        if not (waiting or conflicts) or task.tries >= TRIES:
            return
        task.tries += 1

        def chosen(indices):
            return ([keys[i] for i in indices], [buffers[i] for i in indices],
                    [i if places is None else places[i] for i in indices])

        if conflicts:
            self.replaced += len(conflicts)
            self._submit(task, space, *chosen(conflicts), replace=True)
        if waiting:
            self.retried += len(waiting)
            task.open += 1
            timer = threading.Timer(
                min(max(wait, _SHORTEST_WAIT), _LONGEST_WAIT), self._later,
                (task, space, *chosen(waiting)))
            timer.daemon = True
            timer.start()

    def _later(self, task, space, keys, buffers, places) -> None:
        with self._mutex:
            if not self._closed:
                self._submit(task, space, keys, buffers, places)
            self._part_ended(task)

    def finish(self, task: Task) -> None:
        """Lets a task come out that needed no transfer; to whoever collects each time that the
        descriptor has become readable. A burst of them signals once: each write lets another thread
        in between, which would take them one by one."""
        with self._mutex:
            self._done.append(task)
            if len(self._done) == 1:
                self._signal()

    def close(self) -> None:
        """Gives up what is under way, and waits until its memory is free."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._queue.close()
            self._batches.clear()
