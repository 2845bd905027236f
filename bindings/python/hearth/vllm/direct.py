"""Moves blocks straight between the store and a paged KV cache in host memory.

The cache's allocation is registered as one region. A load is one batch a shard, so that the first
layers' bytes are asked for first and a layer waits for no more than its own; all batches are out at
once. A save is one batch of whole blocks, whose memory must stand still until it ends.
"""

import time
from collections.abc import Sequence
from typing import Any

from vllm.logger import init_logger

import hearth
from hearth.vllm.options import REFUSALS
from hearth.vllm.pages import Page
from hearth.vllm.planner import Load, Save
from hearth.vllm.unreadable import drop_unreadable

logger = init_logger("vllm.hearth.connector")


class DirectMover:
    """See worker.Mover."""

    def __init__(self, store: Any, worker: Any, mine: dict[str, Any]) -> None:
        self._worker, self._pages = worker, worker.pages
        self._store = store
        self._timeout = float(mine["load_timeout_s"])
        self._durability = mine["durability"]
        self._room = int(mine["pending_save_bytes"])
        self._region = None
        pages = self._pages
        if pages.span:
            try:
                self._region = store.register(address=pages.base, length=pages.span)
            except hearth.Error as error:
                logger.warning("Hearth: the KV cache could not be registered (%s): every block "
                               "is copied on its way", error)
        self._base = pages.base if self._region is not None else 0
        self._gets = store.queue()
        self._puts = store.queue()
        self._loading: dict[int, int] = {}   # batch -> shard
        self._open: list[int] = [0] * len(pages.shards)  # batches out, by shard
        self._blocks: list[int] = []         # of the step's loads, in the order of the keys
        self._keys: list[bytes] = []
        self._space: Any = None              # that the step loads from
        self._failed: dict[int, str] = {}
        self._saving: dict[int, tuple[list[bytes], list[int]]] = {}  # batch -> keys, blocks
        self._reading: dict[int, int] = {}   # block -> saves that read it
        self._pending = 0                    # bytes of saves under way

    def _piece(self, page: Page, block: int) -> tuple[Any, ...]:
        address = page.address + block * page.stride
        if self._region is None:
            return (address, page.length)
        return (self._region, address - self._base, page.length)

    # --- Loads ------------------------------------------------------------------------------

    def load(self, loads: Sequence[Load], space: Any) -> None:
        self._space = space
        self._keys = [key for load in loads for key in load.keys]
        self._blocks = [block for load in loads for block in load.blocks]
        self._failed = {}
        piece = self._piece
        for index, shard in enumerate(self._pages.shards):
            buffers: list[Any]
            if len(shard) == 1:
                page = shard[0]
                buffers = [piece(page, block) for block in self._blocks]
            else:
                buffers = [[piece(page, block) for page in shard] for block in self._blocks]
            try:
                batch = self._gets.submit_get(
                    space, self._keys, buffers, shards=(index, 1), timeout=self._timeout)
            except REFUSALS as error:
                logger.error("Hearth: loads could not be begun: %s", error)
                self._failed.update(dict.fromkeys(self._blocks, "refused"))
                return
            self._loading[batch] = index
            self._open[index] += 1

    def wait_shard(self, shard: int) -> None:
        while self._open[shard]:
            for batch, results in self._gets.wait():
                self._ended(batch, results)

    def end_loads(self) -> dict[int, str]:
        while self._loading:
            for batch, results in self._gets.wait():
                self._ended(batch, results)
        failed, self._failed = self._failed, {}
        return failed

    def _ended(self, batch: int, results: Sequence[Any]) -> None:
        shard = self._loading.pop(batch, None)
        if shard is None:
            return
        self._open[shard] -= 1
        broken = []
        for index, result in enumerate(results):
            if result.status != "hit":
                self._failed.setdefault(self._blocks[index], result.reason or result.status)
                if result.status == "failed":
                    broken.append(self._keys[index])
        drop_unreadable(self._gets, self._space, broken)

    # --- Saves ------------------------------------------------------------------------------

    def save(self, saves: Sequence[Save], space: Any) -> int:
        """Begins saves; returns how many blocks were dropped since the device is behind."""
        dropped = 0
        pages = [page for shard in self._pages.shards for page in shard]
        piece, size = self._piece, self._pages.block_bytes
        keys: list[bytes] = []
        parents: list[Any] = []
        blocks: list[int] = []
        for save in saves:
            room = max(0, (self._room - self._pending) // size - len(keys))
            take = min(room, len(save.keys))
            dropped += len(save.keys) - take
            keys += save.keys[:take]
            blocks += save.blocks[:take]
            parents += [save.parent, *save.keys[:-1]][:take]
        if not keys:
            return dropped
        buffers = [[piece(page, block) for page in pages] for block in blocks]
        try:
            batch = self._puts.submit_put(
                space, keys, buffers, parents=parents,
                shard_lengths=self._pages.lengths, durability=self._durability)
        except REFUSALS as error:
            logger.error("Hearth: saves could not be begun: %s", error)
            return dropped + len(keys)
        self._saving[batch] = (keys, blocks)
        self._pending += len(keys) * size
        for block in blocks:
            self._reading[block] = self._reading.get(block, 0) + 1
        return dropped

    def poll(self) -> None:
        if self._saving:
            for batch, results in self._puts.drain():
                self._saved(batch, results)

    def _saved(self, batch: int, results: Sequence[Any]) -> None:
        keys, blocks = self._saving.pop(batch, ((), ()))
        stats, size = self._worker.stats, self._pages.block_bytes
        self._pending -= len(keys) * size
        for block in blocks:
            left = self._reading[block] - 1
            if left:
                self._reading[block] = left
            else:
                del self._reading[block]
        for result in results:
            stats.add("saved_blocks", 1, result.status)
            if result.status == "stored":
                stats.add("saved_bytes", size)

    def wait_saves(self, blocks: set[int], seconds: float) -> None:
        """Waits until no save reads one of the blocks (of any, if there is none); gives them up
        after `seconds`, and waits until the store has let go of their memory."""
        if not self._saving or (blocks and self._reading.keys().isdisjoint(blocks)):
            return
        began = time.monotonic()
        given_up = False
        while self._saving and (not blocks or not self._reading.keys().isdisjoint(blocks)):
            left = seconds - (time.monotonic() - began)
            if left <= 0 and not given_up:
                given_up = True
                logger.warning("Hearth: the device is behind: saves are given up")
                for batch, (_, reads) in self._saving.items():
                    if not blocks or not blocks.isdisjoint(reads):
                        self._puts.cancel(batch)
            for batch, results in self._puts.wait(0.05 if given_up else min(left, 0.05)):
                self._saved(batch, results)
        self._worker.stats.add("save_wait_seconds", time.monotonic() - began)

    def close(self) -> None:
        self.end_loads()
        self.wait_saves(set(), 30.0)
        self._gets.close()
        self._puts.close()
        if self._region is not None:
            self._region.unregister()
