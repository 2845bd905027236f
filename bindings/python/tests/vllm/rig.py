"""vLLM's real offloading stack without a GPU: the real spec, factory, manager and /dev/shm region,
with the test in the place of the GPU worker, which alone refuses CPUs."""

import hashlib
import time
import uuid
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
from vllm.v1.kv_offload.base import (
    LookupResult,
    ReqContext,
    ScheduleEndContext,
    make_offload_key,
)
from vllm.v1.kv_offload.config import (
    OffloadingCacheConfig,
    OffloadingConfig,
    OffloadingGroupConfig,
    OffloadingModelConfig,
    OffloadingParallelConfig,
)
from vllm.v1.kv_offload.factory import OffloadingSpecFactory

ROW = 64 << 10
SMALL_STORE = {"capacity": "640MiB", "max_block": "1MiB", "segment": "64MiB"}


def config(tiers: Sequence[dict[str, Any]], chunks: int, *, row: int = ROW, model: str = "m",
           dtype: str = "bfloat16", tp: int = 1, events: bool = False,
           layers: int = 4) -> OffloadingConfig:
    return OffloadingConfig(
        groups=(OffloadingGroupConfig(16, tuple(f"layers.{i}" for i in range(layers)), 0),),
        worker_kv_bytes_per_block=row // tp, enable_kv_cache_events=events,
        extra_config={"spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": chunks * row,
                      "secondary_tiers": [dict(tier) for tier in tiers]},
        engine_id=f"hearth-test-{uuid.uuid4()}", model=OffloadingModelConfig(model, dtype),
        cache=OffloadingCacheConfig(16, 1),
        parallel=OffloadingParallelConfig(0, tp, tp, 1, 1, 1, 0, 1, None, False),
        kv_cache_layout="LBHNC")


def hearth_tier(path: Any, **more: Any) -> dict[str, Any]:
    return {"type": "HearthTier", "module_path": "hearth.vllm", "path": str(path),
            "salt": "rig", **SMALL_STORE, **more}


def keys(count: int, name: str = "k") -> list[bytes]:
    return [make_offload_key(hashlib.sha256(f"{name}{i}".encode()).digest(), 0)
            for i in range(count)]


def payload(key: bytes, row: int = ROW) -> np.ndarray:
    """The bytes that belong under a key: no two keys share any page of them."""
    seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
    return np.random.default_rng(seed).integers(0, 256, row, dtype=np.uint8)


class Rig:
    """One life of an engine's offloading."""

    def __init__(self, tiers: Sequence[dict[str, Any]], chunks: int = 32, **how: Any) -> None:
        self.spec = OffloadingSpecFactory.create_spec(config(tiers, chunks, **how))
        self.manager = self.spec.get_manager()
        view = np.asarray(self.manager.primary_tier.get_kv_memoryview())
        self.view = view.view(np.uint8)
        del view
        self.requests = 0

    @property
    def tier(self) -> Any:
        return self.manager.secondary_tiers[0]

    def request(self, params: Optional[dict[str, Any]] = None) -> ReqContext:
        self.requests += 1
        context = ReqContext(f"request-{self.requests}", kv_transfer_params=params)
        self.manager.on_new_request(context)
        return context

    def step(self, new: Sequence[str] = ()) -> None:
        self.manager.on_schedule_end(ScheduleEndContext(new, ()))

    def settle(self, seconds: float = 20.0) -> None:
        """Steps until nothing is under way."""
        until = time.monotonic() + seconds
        while True:
            self.step()
            if not self.manager.has_pending_work():
                return
            assert time.monotonic() < until, "transfers do not end"
            time.sleep(0.001)

    def store(self, wanted: Sequence[bytes], context: Optional[ReqContext] = None) -> None:
        """What a GPU worker does: the payloads into the primary tier, and on to the tiers."""
        context = context or self.request()
        output = self.manager.prepare_store(wanted, context)
        assert output is not None, "the primary tier is full of pinned chunks"
        for key, chunk in zip(output.keys_to_store, output.store_spec.chunk_ids):
            self.view[chunk] = payload(key, self.view.shape[1])
        if output.keys_to_store:
            self.manager.complete_store(output.keys_to_store, context)
        self.settle()

    def look(self, wanted: Sequence[bytes], context: Optional[ReqContext] = None
             ) -> list[LookupResult]:
        """Final answers: asks until no tier says "later", as vLLM's scheduler does."""
        context = context or self.request()
        until = time.monotonic() + 20
        pending = (LookupResult.RETRY, LookupResult.HIT_PENDING)
        while True:
            answers = [self.manager.lookup(key, context) for key in wanted]
            if not any(answer in pending for answer in answers):
                return answers
            assert time.monotonic() < until, "lookups do not end"
            self.settle()

    def check(self, wanted: Sequence[bytes]) -> int:
        """How many of these keys are in the primary tier with the right bytes; none may be there
        with wrong ones."""
        context = self.request()
        right = 0
        for key in wanted:
            if self.manager.primary_tier.lookup(key, context) is not LookupResult.HIT:
                continue
            spec = self.manager.prepare_load([key], context)
            row = self.view[int(spec.chunk_ids[0])]
            assert np.array_equal(row, payload(key, self.view.shape[1])), "wrong bytes"
            self.manager.complete_load([key], context)
            right += 1
        return right

    def close(self) -> None:
        del self.view  # or the region could not be unmapped
        self.manager.shutdown()
