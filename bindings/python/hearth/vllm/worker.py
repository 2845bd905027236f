"""The worker's side of HearthConnector: it holds the store and moves blocks between it and the
paged KV cache.

Where the cache is host memory, the store reads into it and writes from it directly. Where it is a
GPU's, `staged.Mover` carries the bytes through pinned host memory. Both are movers with the same
four calls, so that this file only keeps order:

- the loads of a step are begun for all layers at once, shard by shard in the model's order, and a
  layer waits for its own shard alone;
- saves are begun after a step and end on their own; a later step that would write one of their
  blocks waits for them first, since a put reads the cache itself.

A block of which any shard did not arrive is reported to vLLM, which recomputes it or fails the
request, as kv_load_failure_policy says; what the step computed from it is not saved.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any, Optional, Protocol

import torch
from vllm.logger import init_logger

import hearth
from hearth.vllm import lookups, options, spaces
from hearth.vllm.pages import WHERE, Pages
from hearth.vllm.planner import Load, Plan, Save, number
from hearth.vllm.stats import HearthConnectorStats

logger = init_logger("vllm.hearth.connector")

# A later step waits this long for saves that read its blocks; then they are given up.
SAVE_WAIT_SECONDS = 2.0
# After a failed load, this step's saves and the next one's are dropped: vLLM may have planned one
# step ahead, on bytes that did not arrive.
DROPPED_STEPS = 2


class Mover(Protocol):
    """Moves blocks. Not thread safe; called by the worker's thread."""

    def load(self, loads: Sequence[Load]) -> None: ...
    def wait_shard(self, shard: int) -> None: ...
    def end_loads(self) -> dict[int, str]: ...
    def save(self, saves: Sequence[Save]) -> int: ...
    def poll(self) -> None: ...
    def wait_saves(self, blocks: set[int], seconds: float) -> None: ...
    def close(self) -> None: ...


class Worker:
    """One engine's worker. Made when the KV caches are known."""

    def __init__(self, vllm_config: Any, kv_cache_config: Any, caches: dict[str, torch.Tensor],
                 mine: dict[str, Any], store: dict[str, Any]) -> None:
        parallel = vllm_config.parallel_config
        group = kv_cache_config.kv_cache_groups[0]
        self.pages = Pages(caches, group.layer_names, kv_cache_config.num_blocks,
                           int(mine["shard_bytes"]))
        where = options.paths(WHERE, mine["path"], parallel.data_parallel_index,
                              parallel.data_parallel_size)
        self.stats = HearthConnectorStats()
        self._fields = spaces.of_connector(
            vllm_config, kv_cache_config, [self.pages.shapes, self.pages.lengths],
            str(mine["salt"]))
        self._mine = mine
        self._closed = False
        self._dropping = 0
        self._invalid: set[int] = set()
        self._plan: Optional[Plan] = None
        self._waited = 0
        self._step = 0
        self._purging = threading.Lock()
        self._store = options.acquire(
            WHERE, where, options.sized(WHERE, store, self.pages.block_bytes))
        try:
            self._open_space()
            self.mover = self._make_mover()
            self._server = lookups.Server(vllm_config.kv_transfer_config.engine_id, self)
        except BaseException:
            options.release(self._store)
            raise
        logger.info(
            "Hearth %s at %s: blocks of %d bytes in %d shards of %d layers, %s",
            hearth.version(), ", ".join(where), self.pages.block_bytes, len(self.pages.shards),
            len(self.pages.layers), type(self.mover).__module__)

    def _open_space(self) -> None:
        self.space = self._store.namespace(
            self._fields, layout="aligned", ttl_seconds=int(self._mine["ttl_seconds"]),
            cap_bytes=int(self._mine["cap_bytes"]))

    def _make_mover(self) -> Mover:
        staged = self._mine["staged"]
        if self.pages.device.type != "cpu" or staged:
            from hearth.vllm.staged import StagedMover

            return StagedMover(self._store, self, self._mine)
        from hearth.vllm.direct import DirectMover

        return DirectMover(self._store, self, self._mine)

    # --- What the scheduler asks; from other threads ---------------------------------------

    def contains_many(self, keys: Sequence[bytes]) -> Sequence[int]:
        return self.space.contains_many(keys)

    def hint_chain(self, request: int, keys: Sequence[bytes]) -> None:
        self._hint("chain", space=self.space, keys=list(keys), request=request)

    def hint_cancel(self, request: int) -> None:
        self._hint("cancel", request=request)

    def purge(self) -> bool:
        """Forgets every block: called between steps, when the weights have changed."""
        with self._purging:
            try:
                self.mover.wait_saves(set(), float("inf"))
                self.space.purge()
                self._open_space()
                return True
            except hearth.Error as error:
                logger.error("Hearth: the store could not be emptied: %s", error)
                return False

    def _hint(self, kind: Any, **what: Any) -> None:
        try:
            self._store.hint(kind, **what)
        except hearth.Error as error:
            logger.warning_once("Hearth took no hint: %s", error)

    # --- A step, in vLLM's order ------------------------------------------------------------

    def begin(self, plan: Plan) -> None:
        """Before anything of the step is written."""
        self.mover.poll()
        if plan.written:
            self.mover.wait_saves(set(plan.written), SAVE_WAIT_SECONDS)

    def load(self, plan: Plan) -> None:
        self._plan = plan
        self._waited = -1
        self._step += 1
        if plan.loads:
            self.mover.load(plan.loads)

    def wait_layer(self, layer: str) -> None:
        plan = self._plan
        if plan is None or not plan.loads:
            return
        shard = self.pages.shard_of.get(layer)
        if shard is None or shard <= self._waited:
            return
        self._waited = shard
        began = time.monotonic()
        self.mover.wait_shard(shard)
        self.stats.add("load_wait_seconds", time.monotonic() - began)
        for load in plan.loads:
            self._hint("progress", request=number(load.request), step=self._step,
                       layer=self.pages.starts[shard])

    def end(self, plan: Plan) -> None:
        """After the step's forward passes: the loads are over, the saves begin."""
        if plan.loads:
            failed = self.mover.end_loads()
            blocks = sum(len(load.blocks) for load in plan.loads)
            self.stats.add("loaded_blocks", blocks - len(failed))
            self.stats.add("loaded_bytes", (blocks - len(failed)) * self.pages.block_bytes)
            if failed:
                self._invalid.update(failed)
                for reason in failed.values():
                    self.stats.add("load_failures", 1, reason)
                self._dropping = DROPPED_STEPS
                logger.warning("Hearth: %d of %d blocks did not load (%s): vLLM handles them as "
                               "kv_load_failure_policy says", len(failed), blocks,
                               ", ".join(sorted(set(failed.values()))))
        self._plan = None
        if self._dropping:
            self._dropping -= 1
            self.stats.add("saves_dropped", sum(len(save.keys) for save in plan.saves),
                           "after-failed-load")
        elif plan.saves:
            dropped = self.mover.save(plan.saves)
            if dropped:
                self.stats.add("saves_dropped", dropped, "device-behind")

    def take_invalid(self) -> set[int]:
        invalid, self._invalid = self._invalid, set()
        return invalid

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._server.close()
        try:
            self.mover.close()
            self.space.close()
        finally:
            options.release(self._store)
