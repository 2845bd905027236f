"""The worker's side of HearthConnector: it holds the store and moves blocks between it and the
paged KV cache.

Where the cache is host memory, the store reads into it and writes from it directly. Where it is a
GPU's, `staged.Mover` carries the bytes through pinned host memory. Both are movers with the same
four calls, so that this file only keeps order:

- the loads of a step are begun for all layers at once, shard by shard in the model's order, and a
  layer waits for its own shard alone;
- saves are begun after a step and end on their own; a later step that would write one of their
  blocks waits for them first, since a put reads the cache itself.

A block of which any shard did not arrive is reported to vLLM with the very step. It recomputes the
block or fails the request, as kv_load_failure_policy says; what was computed from it is not saved.

Where vLLM resets the cache, weights may have changed that the namespace's fields know nothing of.
From then on, an epoch, another namespace is used, that no restart finds: see `renew`. What the one
before holds stays as it is, for the weights that the fields name.
"""

import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Optional, Protocol

import torch
from vllm.logger import init_logger

import hearth
from hearth.vllm import lookups, options, spaces
from hearth.vllm.pages import WHERE, Pages
from hearth.vllm.planner import Load, Plan, Save, number
from hearth.vllm.refusals import refuse_layers
from hearth.vllm.stats import HearthConnectorStats

logger = init_logger("vllm.hearth.connector")

# A later step waits this long for saves that read its blocks; then they are given up.
SAVE_WAIT_SECONDS = 2.0
# After a failed load, this step's saves and the next one's are dropped: vLLM may have planned one
# step ahead, on bytes that did not arrive.
DROPPED_STEPS = 2
# Epochs are purged when the next one begins and at the end. Those of engines that were killed
# expire, since nothing finds them any more.
EPOCH_TTL_SECONDS = 86400


class Mover(Protocol):
    """Moves blocks. Not thread safe; called by the worker's thread."""

    def load(self, loads: Sequence[Load], space: Any) -> None: ...
    def wait_shard(self, shard: int) -> None: ...
    def end_loads(self) -> dict[int, str]: ...
    def save(self, saves: Sequence[Save], space: Any) -> int: ...
    def poll(self) -> None: ...
    def wait_saves(self, blocks: set[int], seconds: float) -> None: ...
    def close(self) -> None: ...


class Worker:
    """One engine's worker. Made when the KV caches are known."""

    def __init__(self, vllm_config: Any, kv_cache_config: Any, caches: dict[str, torch.Tensor],
                 mine: dict[str, Any], store: dict[str, Any]) -> None:
        parallel = vllm_config.parallel_config
        group = kv_cache_config.kv_cache_groups[0]
        refuse_layers(vllm_config.compilation_config.static_forward_context, group.layer_names)
        self.pages = Pages(caches, group.layer_names, kv_cache_config.num_blocks,
                           int(mine["shard_bytes"]))
        where = options.paths(WHERE, mine["path"], parallel.data_parallel_index,
                              parallel.data_parallel_size)
        self.stats = HearthConnectorStats()
        self._fields = spaces.of_connector(
            WHERE, vllm_config, kv_cache_config, [self.pages.shapes, self.pages.lengths],
            str(mine["salt"]))
        self._mine = mine
        self._closed = False
        self._reset()
        self._store = options.acquire(
            WHERE, where, options.sized(WHERE, store, self.pages.block_bytes))
        try:
            self.space = self._spaces[0] = self._open_space(0)
            self.mover = self._make_mover()
            self._server = lookups.Server(vllm_config.kv_transfer_config.engine_id, where, self)
        except BaseException:
            options.release(self._store)
            raise
        logger.info(
            "Hearth %s at %s: blocks of %d bytes in %d shards of %d layers, %s",
            hearth.version(), ", ".join(where), self.pages.block_bytes, len(self.pages.shards),
            len(self.pages.layers), type(self.mover).__module__)

    def _reset(self) -> None:
        """The state of a worker before its first step."""
        self._dropping = 0
        self._invalid: set[int] = set()
        self._plan: Optional[Plan] = None      # of the step whose loads are out
        self._waited: set[int] = set()         # shards that the step has
        self._step = 0
        self._run = uuid.uuid4().hex
        self._epochs = threading.Lock()        # held where the two below change
        self._epoch = 0
        self._spaces: dict[int, Any] = {}      # of this epoch and of the one before

    def _open_space(self, epoch: int) -> Any:
        fields, ttl = dict(self._fields), self._mine["ttl_seconds"]
        if epoch:
            fields["epoch"] = f"{self._run}-{epoch}"
            ttl = min(ttl or EPOCH_TTL_SECONDS, EPOCH_TTL_SECONDS)
        return self._store.namespace(
            fields, layout="aligned", ttl_seconds=ttl, cap_bytes=self._mine["cap_bytes"])

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

    def renew(self, epoch: int) -> bool:
        """Begins an epoch: nothing that was stored before is found in it. Steps that were planned
        before it load what they were planned with, and save nothing. The mover is not touched."""
        with self._epochs:
            if epoch <= self._epoch:
                return True
            try:
                space = self._open_space(epoch)
            except options.REFUSALS as error:
                logger.error("Hearth: no namespace for KV of changed weights: %s", error)
                return False
            old, self._spaces = self._spaces, {self._epoch: self.space, epoch: space}
            self.space, self._epoch = space, epoch
            gone = [one for number, one in old.items() if number and number not in self._spaces]
        self._forget(gone)
        return True

    def _forget(self, epochs: Iterable[Any]) -> None:
        for space in epochs:
            try:
                space.purge()
            except hearth.Error as error:
                logger.warning("Hearth: blocks of an epoch stay until they expire: %s", error)

    def _hint(self, kind: Any, **what: Any) -> None:
        try:
            self._store.hint(kind, **what)
        except options.REFUSALS as error:
            logger.warning_once("Hearth took no hint: %s", error)

    # --- A step, in vLLM's order ------------------------------------------------------------

    def begin(self, plan: Plan) -> None:
        """Before anything of the step is written."""
        self.mover.poll()
        if plan.epoch > self._epoch:  # the scheduler's message was lost
            self.renew(plan.epoch)
        if plan.written:
            self.mover.wait_saves(set(plan.written), SAVE_WAIT_SECONDS)

    def load(self, plan: Plan) -> None:
        self.finish()  # of a step that vLLM left before its end
        self._waited.clear()
        self._step += 1
        if not plan.loads:
            return
        space = self._spaces.get(plan.epoch)
        if space is None:
            self._failed(plan, dict.fromkeys(_blocks(plan), "reset"))
            return
        self._plan = plan
        self.mover.load(plan.loads, space)

    def wait_layer(self, layer: str) -> None:
        plan = self._plan
        shard = self.pages.shard_of.get(layer)
        if plan is None or shard is None or shard in self._waited:
            return
        began = time.monotonic()
        self.mover.wait_shard(shard)
        self._waited.add(shard)
        self.stats.add("load_wait_seconds", time.monotonic() - began)
        for load in plan.loads:
            self._hint("progress", request=number(load.request), step=self._step,
                       layer=self.pages.starts[shard])

    def finish(self) -> None:
        """Ends the step's loads, once: after the model's forward pass, or when vLLM asks which
        blocks failed. With speculative decoding it asks before `end`."""
        plan, self._plan = self._plan, None
        if plan is None:
            return
        failed = self.mover.end_loads()
        if not self._waited:
            logger.error("Hearth: no layer waited for its KV: what was loaded counts as failed")
            failed = dict.fromkeys(_blocks(plan), "not-waited-for")
        count = sum(len(load.blocks) for load in plan.loads) - len(failed)
        self.stats.add("loaded_blocks", count)
        self.stats.add("loaded_bytes", count * self.pages.block_bytes)
        if failed:
            self._failed(plan, failed)

    def _failed(self, plan: Plan, failed: dict[int, str]) -> None:
        self._invalid.update(failed)
        for reason in failed.values():
            self.stats.add("load_failures", 1, reason)
        self._dropping = DROPPED_STEPS
        logger.warning("Hearth: %d of %d blocks did not load (%s): vLLM handles them as "
                       "kv_load_failure_policy says", len(failed),
                       sum(len(load.blocks) for load in plan.loads),
                       ", ".join(sorted(set(failed.values()))))

    def end(self, plan: Plan, raised: bool = False) -> None:
        """After the step's forward passes, or where one `raised`: the loads are over, the saves
        begin."""
        self.finish()
        with self._epochs:
            space, epoch = self.space, self._epoch
        if raised:
            self._dropping = DROPPED_STEPS
        reason = ""
        if self._dropping:
            self._dropping -= 1
            reason = "after-error" if raised else "after-failed-load"
        elif plan.epoch != epoch:
            reason = "reset"  # of the weights before, or of the ones after: nobody knows
        if reason:
            self.stats.add("saves_dropped", sum(len(save.keys) for save in plan.saves), reason)
        elif plan.saves:
            dropped = self.mover.save(plan.saves, space)
            if dropped:
                self.stats.add("saves_dropped", dropped, "device-behind")

    def take_invalid(self) -> set[int]:
        self.finish()
        invalid, self._invalid = self._invalid, set()
        return invalid

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._server.close()
        try:
            self.mover.close()
            self._forget([space for epoch, space in self._spaces.items() if epoch])
            self.space.close()
        finally:
            options.release(self._store)


def _blocks(plan: Plan) -> list[int]:
    return [block for load in plan.loads for block in load.blocks]
