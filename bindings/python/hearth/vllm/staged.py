"""Moves blocks between the store and a paged KV cache that the device cannot reach: a GPU's.

Bytes pass through pinned host memory, cut into cells of one shard each and registered as one
region. Loads run shard by shard, as many ahead of the model as there are cells; what has arrived is
copied to the GPU on a stream of its own, and a layer's wait is an event on the model's stream.
Saves are copied to cells on the same stream, after the step that made them, and put by a thread
that waits for that copy, so that neither the model nor vLLM waits for the store.

Cells belong to exactly one of: the free list, a load, a save. Saves take at most half of them.
On host memory the same code runs with plain copies, which is how it is tested without a GPU.
"""

import contextlib
import mmap
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Optional

import torch
from vllm.logger import init_logger

from hearth.vllm.options import REFUSALS, SHARD_ALIGNMENT, ConfigurationError
from hearth.vllm.pages import WHERE
from hearth.vllm.planner import Load, Save
from hearth.vllm.unreadable import drop_unreadable

logger = init_logger("vllm.hearth.connector")


class Cells:
    """Pinned host memory in cells of equal size."""

    def __init__(self, store: Any, room: int, size: int, pinned: bool) -> None:
        self.size = (size + SHARD_ALIGNMENT - 1) // SHARD_ALIGNMENT * SHARD_ALIGNMENT
        self.count = room // self.size
        length = self.count * self.size
        if pinned:
            self.memory = torch.empty(length, dtype=torch.uint8, pin_memory=True)
        else:
            self.memory = torch.frombuffer(mmap.mmap(-1, max(length, 1)), dtype=torch.uint8)
        self.region = store.register(address=self.memory.data_ptr(), length=length)
        self._free = list(range(self.count))
        self._lock = threading.Lock()

    def take(self, wanted: int, keep: int = 0) -> list[int]:
        """Up to `wanted` cells, leaving `keep` free."""
        with self._lock:
            count = min(wanted, max(0, len(self._free) - keep))
            taken = self._free[len(self._free) - count:]
            del self._free[len(self._free) - count:]
            return taken

    def give(self, cells: Sequence[int]) -> None:
        with self._lock:
            self._free.extend(cells)

    def piece(self, cell: int, length: int) -> tuple[Any, int, int]:
        return (self.region, cell * self.size, length)


class SaveJob:
    """Blocks on their way from the GPU to the store."""

    def __init__(self, save_keys: list[bytes], parents: list[Any], blocks: list[int],
                 cells: list[list[int]], space: Any) -> None:
        self.space = space
        self.keys, self.parents, self.blocks, self.cells = save_keys, parents, blocks, cells
        self.copied: Any = None  # the event after the copy to host memory


class StagedMover:
    """See worker.Mover."""

    def __init__(self, store: Any, worker: Any, mine: dict[str, Any]) -> None:
        self._worker, self._pages = worker, worker.pages
        self._timeout = float(mine["load_timeout_s"])
        self._durability = mine["durability"]
        pages = self._pages
        self._cuda = pages.device.type == "cuda"
        if not self._cuda and pages.device.type != "cpu":
            raise ConfigurationError(
                f"{WHERE}: KV caches on {pages.device.type} cannot be moved yet; cuda and cpu can")
        room = int(mine["staging_bytes"])
        if room < 4 * pages.block_bytes:
            raise ConfigurationError(
                f"{WHERE}: staging_bytes {room} is too small for blocks of {pages.block_bytes} "
                f"bytes; give at least {4 * pages.block_bytes}")
        self._cells = Cells(store, room, max(pages.lengths), self._cuda)
        self._stream = torch.cuda.Stream(pages.device) if self._cuda else None
        # The bytes of each layer's cache, and of the cells.
        self._raw = [_bytes_of(tensor) for tensor in pages.tensors]
        self._gets = store.queue()
        self._todo: deque[tuple[int, list[int]]] = deque()  # shard, indices not yet asked for
        self._out: dict[int, tuple[int, list[int], list[int]]] = {}  # batch: shard, indices, cells
        self._left = [0] * len(pages.shards)                # blocks to come, by shard
        self._arrived: list[Any] = [None] * len(pages.shards)
        self._busy: deque[tuple[Any, list[int]]] = deque()  # event, cells still read by the GPU
        self._keys: list[bytes] = []
        self._blocks: list[int] = []
        self._space: Any = None                             # that the step loads from
        self._failed: dict[int, str] = {}
        self._jobs: queue.Queue[Optional[SaveJob]] = queue.Queue()
        self._saving: list[SaveJob] = []
        self._lock = threading.Lock()
        self._outcomes: list[Any] = []
        self._lost = 0                                      # blocks of saves that raised
        self._thread = threading.Thread(target=self._put_jobs, name="hearth-saves", daemon=True)
        self._thread.start()

    # --- Loads ------------------------------------------------------------------------------

    def load(self, loads: Sequence[Load], space: Any) -> None:
        self._space = space
        self._keys = [key for load in loads for key in load.keys]
        self._blocks = [block for load in loads for block in load.blocks]
        self._failed = {}
        everything = list(range(len(self._keys)))
        self._todo.extend((shard, everything) for shard in range(len(self._pages.shards)))
        self._left = [len(everything)] * len(self._pages.shards)
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._pages.device))
        self._ask()

    def _ask(self) -> None:
        """Asks for as much as there are cells."""
        while self._busy and (self._busy[0][0] is None or self._busy[0][0].query()):
            self._cells.give(self._busy.popleft()[1])
        while self._todo:
            shard, indices = self._todo[0]
            cells = self._cells.take(len(indices))
            if not cells:
                return
            self._todo.popleft()
            now, rest = indices[:len(cells)], indices[len(cells):]
            if rest:
                self._todo.appendleft((shard, rest))
            length = self._pages.lengths[shard]
            try:
                batch = self._gets.submit_get(
                    self._space, [self._keys[index] for index in now],
                    [self._cells.piece(cell, length) for cell in cells],
                    shards=(shard, 1), timeout=self._timeout)
            except REFUSALS as error:
                logger.error("Hearth: loads could not be begun: %s", error)
                self._cells.give(cells)
                for index in now:
                    self._failed.setdefault(self._blocks[index], "refused")
                self._left[shard] -= len(now)
                continue
            self._out[batch] = (shard, now, cells)

    def _pump(self) -> None:
        """Takes what has arrived to the GPU, and asks for more."""
        if not self._out and self._busy and self._busy[0][0] is not None:
            self._busy[0][0].synchronize()  # every cell is with the GPU
        elif not self._out:
            time.sleep(0.001)  # every cell is with a save: the thread of saves gives them back
        for batch, results in self._gets.wait(0.1) if self._out else ():
            if batch not in self._out:
                continue
            shard, indices, cells = self._out.pop(batch)
            broken = []
            with self._on_stream():
                for index, cell, result in zip(indices, cells, results):
                    if result.status == "hit":
                        self._copy(shard, self._blocks[index], cell, to_cache=True)
                    else:
                        self._failed.setdefault(
                            self._blocks[index], result.reason or result.status)
                        if result.status == "failed":
                            broken.append(self._keys[index])
            drop_unreadable(self._gets, self._space, broken)
            event = self._event()
            self._arrived[shard] = event
            self._busy.append((event, cells))
            self._left[shard] -= len(indices)
        self._ask()

    def wait_shard(self, shard: int) -> None:
        while self._left[shard]:
            self._pump()
        if self._arrived[shard] is not None:
            torch.cuda.current_stream(self._pages.device).wait_event(self._arrived[shard])

    def end_loads(self) -> dict[int, str]:
        for shard in range(len(self._left)):
            self.wait_shard(shard)
        failed, self._failed = self._failed, {}
        return failed

    # --- Saves ------------------------------------------------------------------------------

    def save(self, saves: Sequence[Save], space: Any) -> int:
        shards = len(self._pages.shards)
        keep = self._cells.count // 2
        job = SaveJob([], [], [], [], space)
        dropped = 0
        while self._busy and (self._busy[0][0] is None or self._busy[0][0].query()):
            self._cells.give(self._busy.popleft()[1])
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._pages.device))
        with self._on_stream():
            for save in saves:
                parent = save.parent
                for key, block in zip(save.keys, save.blocks):
                    cells = self._cells.take(shards, keep)
                    if len(cells) < shards:
                        self._cells.give(cells)
                        dropped += 1
                        continue
                    for shard, cell in enumerate(cells):
                        self._copy(shard, block, cell, to_cache=False)
                    job.keys.append(key)
                    job.parents.append(parent)
                    job.blocks.append(block)
                    job.cells.append(cells)
                    parent = key
        if job.keys:
            job.copied = self._event()
            with self._lock:
                self._saving.append(job)
            self._jobs.put(job)
        return dropped

    def _put_jobs(self) -> None:
        """The thread of saves: one job after the other, as their bytes arrive in host memory."""
        lengths = self._pages.lengths
        while (job := self._jobs.get()) is not None:
            results: Sequence[Any] = ()
            lost = len(job.keys)
            try:
                if job.copied is not None:
                    job.copied.synchronize()
                results = job.space.put(
                    job.keys,
                    [[self._cells.piece(cell, length) for cell, length in zip(cells, lengths)]
                     for cells in job.cells],
                    parents=job.parents, shard_lengths=lengths, durability=self._durability)
                lost = 0
            except Exception as error:  # a GPU's too: the thread must go on, or its cells are gone
                logger.error("Hearth: saves failed: %s", error)
            finally:
                for cells in job.cells:
                    self._cells.give(cells)
                with self._lock:
                    self._saving.remove(job)
                    self._outcomes.extend(results)
                    self._lost += lost

    def poll(self) -> None:
        """Takes the figures of saves that ended; they belong to the worker's thread."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
            lost, self._lost = self._lost, 0
        self._worker.stats.add("saves_dropped", lost, "error")
        for result in outcomes:
            self._worker.stats.add("saved_blocks", 1, result.status)
            if result.status == "stored":
                self._worker.stats.add("saved_bytes", self._pages.block_bytes)

    def wait_saves(self, blocks: set[int], seconds: float) -> None:
        """The model's stream waits for copies out of these blocks; with none, the caller waits
        until every save has ended."""
        if blocks:
            with self._lock:
                events = [job.copied for job in self._saving
                          if job.copied is not None and not blocks.isdisjoint(job.blocks)]
            for event in events:
                torch.cuda.current_stream(self._pages.device).wait_event(event)
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self._lock:
                if not self._saving:
                    return
            time.sleep(0.002)

    # --- Copies -----------------------------------------------------------------------------

    def _copy(self, shard: int, block: int, cell: int, to_cache: bool) -> None:
        """Copies one block's shard between its cell and its layers' pages."""
        at = cell * self._cells.size
        first = self._pages.starts[shard]
        for number, page in enumerate(self._pages.shards[shard], first):
            raw, base = self._raw[number]
            low = page.address - base + block * page.stride
            there = raw[low:low + page.length]
            here = self._cells.memory[at:at + page.length]
            if to_cache:
                there.copy_(here, non_blocking=True)
            else:
                here.copy_(there, non_blocking=True)
            at += page.length

    def _on_stream(self) -> Any:
        if self._stream is None:
            return contextlib.nullcontext()
        return torch.cuda.stream(self._stream)

    def _event(self) -> Any:
        if self._stream is None:
            return None
        event = torch.cuda.Event()
        event.record(self._stream)
        return event

    def close(self) -> None:
        self.end_loads()
        self._jobs.put(None)
        self._thread.join()
        self._gets.close()
        if self._stream is not None:
            self._stream.synchronize()
        self._cells.region.unregister()


def _bytes_of(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The tensor's whole allocation as bytes, and where it begins."""
    storage = tensor.untyped_storage()
    raw = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    raw.set_(storage, 0, (storage.nbytes(),))
    return raw, storage.data_ptr()
