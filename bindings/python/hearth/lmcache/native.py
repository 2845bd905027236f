"""HearthNativeClient: the client behind LMCache's L2 adapter of type `native_plugin`.

LMCache's wrapper around it keeps tasks, usage and its own count of locks, and drives it from one
thread that waits on one descriptor. Keys come as text and are taken apart into the parts of an
ObjectKey. The client is not told of LMCache's memory: buffers are transferred by address, without a
copy where they are aligned to 4096 bytes. Nor is it told what the bytes mean, so the configuration
has to say it (`namespace`).

The wrapper does not tell of unlocking, so what a lookup found is locked until it has been loaded,
and for `lock_seconds` at most.
"""

import logging
import os
import threading

import hearth

from .blocks import BlockStore
from .keys import HEAD_BYTES, KEY_LIMIT, encode_text
from .layouts import NATIVE
from .parameters import ConfigurationError, Parameters
from .transfers import DELETE, GET, LOOKUP, PUT, Task, Transfers

logger = logging.getLogger(__name__)

# Ranks and groups of a process whose keys' beginnings are kept.
HEADS = 1024


class HearthNativeClient:
    """A connector over a Hearth store; the parameters are those of HearthL2Adapter."""

    def __init__(self, **params):
        parameters = Parameters.from_dict(params)
        if not parameters.tells_dtype:
            raise ConfigurationError(
                "namespace: LMCache does not tell a native connector the data type, and objects of "
                "another one must not be found; give the engine's, such as "
                '"namespace": {"dtype": "bfloat16"}, or use the type "plugin"')
        self._blocks = BlockStore(parameters, lock_limit=parameters.lock_seconds)
        try:
            self._transfers = Transfers(self._blocks.store, parameters.durability)
        except BaseException:
            self._blocks.close()
            raise
        self._mutex = threading.Lock()
        # What the text of a key says before its hash: the namespace, and how the key begins there.
        self._heads: dict[str, tuple] = {}
        self._next = 0
        self._closed = False
        self._blocks.wait_recovered()

    def event_fd(self) -> int:
        return self._transfers.descriptor

    def submit_batch_get(self, keys, views) -> int:
        return self._transfer(GET, keys, views)

    def submit_batch_set(self, keys, views) -> int:
        return self._transfer(PUT, keys, views)

    def submit_batch_delete(self, keys) -> int:
        return self._transfer(DELETE, keys, None)

    def submit_batch_exists(self, keys) -> int:
        task = self._task(LOOKUP, keys, None)
        found = [False] * len(keys)
        for space, encoded, places in self._grouped(task):
            try:
                there = space.contains_many(encoded)
            except hearth.Error as error:
                task.error = str(error)
                continue
            if len(places) == len(found):
                found = list(there)
            else:
                for place, is_there in zip(places, there):
                    found[place] = is_there
            self._blocks.locks.lock(
                space, encoded if all(there)
                else [key for key, is_there in zip(encoded, there) if is_there])
        task.results = found
        self._transfers.finish(task)
        return task.number

    def drain_completions(self) -> list:
        """What has ended, as (future, ok, error, a result for each key). Clears the descriptor."""
        try:
            os.eventfd_read(self._transfers.descriptor)
        except BlockingIOError:
            pass
        return [self._completion(task) for task in self._transfers.collect()]

    def close(self) -> None:
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        self._transfers.close()
        self._blocks.close()

    # Inside

    def _completion(self, task: Task) -> tuple:
        if task.kind == LOOKUP:
            return task.number, not task.error, task.error, task.results
        results = [task.succeeded(place) for place in range(len(task.keys))]
        if task.kind == GET:
            for space, encoded, _ in task.keeps[1]:
                self._blocks.locks.release(space, encoded)
        error = task.error
        if not all(results) and not error:
            failed = {result.status if result else "not submitted"
                      for result, good in zip(task.results, results) if not good}
            error = f"{results.count(False)} of {len(results)} objects: {', '.join(sorted(failed))}"
        # The wrapper judges loads and deletes by their results, a store by this alone.
        ok = all(results)
        if not ok and task.kind != GET:
            logger.warning("Hearth: a %s failed: %s", task.kind, error)
        return task.number, ok, "" if ok else error, results

    def _task(self, kind: str, keys, views) -> Task:
        if views is not None and len(views) != len(keys):
            raise ValueError(f"{len(keys)} keys and {len(views)} buffers")
        with self._mutex:
            if self._closed:
                raise RuntimeError("this HearthNativeClient is closed")
            self._next += 1
            number = self._next
        sizes = () if views is None else [memoryview(view).nbytes for view in views]
        return Task(number, kind, list(keys), sizes, None)

    def _transfer(self, kind: str, keys, views) -> int:
        task = self._task(kind, keys, views)
        groups = self._grouped(task)
        task.keeps = (views, groups)
        if kind == PUT:
            for space, *_ in groups:
                self._blocks.remember(space)
        self._transfers.start(task, [
            (space, encoded, None if views is None else [views[place] for place in places], places)
            for space, encoded, places in groups])
        return task.number

    def _grouped(self, task: Task) -> list:
        """Keys by namespace: (namespace, encoded keys, their places among the task's)."""
        alike = self._alike(task.keys)
        if alike is not None:
            return [(*alike, range(len(task.keys)))]
        groups: dict = {}
        refused: dict[str, int] = {}
        for place, text in enumerate(task.keys):
            try:
                name, encoded = encode_text(text)
                if name not in groups:
                    groups[name] = (self._blocks.space((*name, NATIVE)), [], [])
                self._know(text, groups[name][0], encoded)
            except (hearth.Error, ValueError) as error:
                task.error = str(error)
                refused[task.error] = refused.get(task.error, 0) + 1
                continue
            group = groups[name]
            group[1].append(encoded)
            group[2].append(place)
        for reason, count in refused.items():
            logger.error("Hearth: %d keys were refused: %s", count, reason)
        return list(groups.values())

    def _know(self, text: str, space, encoded: bytes) -> None:
        """Keeps what all keys of a rank and group without a salt begin with."""
        if text.count("@") == 3:
            if len(self._heads) >= HEADS:
                self._heads.clear()
            self._heads[text[:text.rindex("@") + 1]] = (space, encoded[:HEAD_BYTES])

    def _alike(self, keys) -> tuple | None:
        """Namespace and encoded keys of a batch whose keys differ in their hashes alone, as most
        do; None where one does not, or is not known yet."""
        if not keys:
            return None
        start = keys[0][:keys[0].rfind("@") + 1]
        known = self._heads.get(start)
        if known is None:
            return None
        space, head = known
        length, fromhex = len(start), bytes.fromhex
        try:
            encoded = [head + fromhex(text[length:]) for text in keys if text.startswith(start)]
        except ValueError:
            return None  # a salt, or no hash; told with its reason
        sizes = list(map(len, encoded))
        if len(sizes) < len(keys) or min(sizes) == len(head) or max(sizes) > KEY_LIMIT:
            return None
        return space, encoded
