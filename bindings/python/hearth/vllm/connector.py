"""HearthConnector: Hearth as a KV connector of vLLM, for engines without the offloading tier.

vLLM makes one object for the scheduler and one for the worker, in one process or two. This class
is only the seam: planner.py is the scheduler's side, worker.py the worker's, lookups.py what joins
them. What cannot work yet is refused when the engine starts: see refusals.py.
"""

import atexit
import sys
from contextlib import AbstractContextManager
from typing import Any, Optional

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)
from vllm.logger import init_logger
from vllm.v1.metrics.cache_hit_source import CacheHitSource

from hearth.vllm import options, refusals
from hearth.vllm.lookups import Client
from hearth.vllm.pages import WHERE, aligned_allocation
from hearth.vllm.planner import Plan, Planner
from hearth.vllm.stats import HearthConnectorStats, HearthPromMetrics
from hearth.vllm.worker import Worker

logger = init_logger("vllm.hearth.connector")

DEFAULTS: dict[str, Any] = {
    "path": None, "salt": "", "durability": "written", "load_timeout_s": 30.0, "ttl_seconds": 0,
    "cap_bytes": 0, "shard_bytes": 256 * options.KIB, "pending_save_bytes": 1 << 30,
    "save_decoded": True, "staged": False, "staging_bytes": 256 * options.MIB,
}
BOUNDS = {
    "load_timeout_s": (0.001, 86400), "ttl_seconds": (0, 2**31), "cap_bytes": (0, 2**62),
    "shard_bytes": (1, 2**26), "pending_save_bytes": (2**20, 2**42),
    "staging_bytes": (2**22, 2**40),
}


class HearthConnector(KVConnectorBase_V1):
    """Configured by `--kv-transfer-config '{"kv_connector": "HearthConnector",
    "kv_connector_module_path": "hearth.vllm", "kv_role": "kv_both", "kv_connector_extra_config":
    {"path": ..., "capacity": ...}}'`; see docs/vllm.md."""

    _cache_hit_source = CacheHitSource.DISK

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        transfer = self._kv_transfer_config
        self._mine, self._store = options.split(
            WHERE, transfer.kv_connector_extra_config, DEFAULTS)
        for name, (least, most) in BOUNDS.items():
            check = options.number if name == "load_timeout_s" else options.whole
            self._mine[name] = check(WHERE, name, self._mine[name], least, most)
        if self._mine["durability"] not in ("volatile", "written", "durable"):
            raise options.ConfigurationError(
                f"{WHERE}: durability is volatile, written or durable, not "
                f"{self._mine['durability']!r}")
        for name in ("save_decoded", "staged"):
            if not isinstance(self._mine[name], bool):
                raise options.ConfigurationError(f"{WHERE}: {name} must be true or false")
        parallel = vllm_config.parallel_config
        refusals.refuse_topologies(parallel)
        block_tokens = refusals.one_full_group(kv_cache_config)
        refusals.refuse_early_writes(vllm_config, kv_cache_config, block_tokens)
        refusals.refuse_late_recompute(vllm_config)
        if not vllm_config.cache_config.enable_prefix_caching:
            raise options.ConfigurationError(
                f"{WHERE}: prefix caching is off, so vLLM names no blocks; turn it on "
                "(--enable-prefix-caching)")
        self._worker: Optional[Worker] = None
        self._planner: Optional[Planner] = None
        self._begun: Optional[KVConnectorMetadata] = None
        if role is KVConnectorRole.SCHEDULER:
            assert transfer.engine_id is not None
            self._client = Client(transfer.engine_id, options.paths(
                WHERE, self._mine["path"], parallel.data_parallel_index,
                parallel.data_parallel_size))
            self._planner = Planner(
                self._client, block_tokens, kv_cache_config.hash_block_size or block_tokens,
                load=transfer.is_kv_consumer, save=transfer.is_kv_producer,
                save_decoded=self._mine["save_decoded"])

    # --- Worker ------------------------------------------------------------------------------

    @property
    def requires_kv_delivery(self) -> bool:
        """No: a save that is lost is a miss later, and no request waits for it."""
        return False

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """Yes: layers wait for their KV between the pieces of a CUDA graph."""
        return True

    def get_mem_pool_context(self) -> Optional[AbstractContextManager]:
        """On CPUs the KV cache begins at a page boundary, so that the device reads into it."""
        if self._vllm_config.device_config.device_type == "cpu" and not self._mine["staged"]:
            return aligned_allocation()
        return None

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        if self._worker is None:
            self._worker = Worker(
                self._vllm_config, self._kv_cache_config, kv_caches, self._mine, self._store)
            atexit.register(self._worker.close)

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """Called before a step touches the cache."""
        self._begin(kv_connector_metadata)

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        super().bind_connector_metadata(connector_metadata)
        self._begin(connector_metadata)

    def _begin(self, metadata: KVConnectorMetadata) -> None:
        if metadata is self._begun or self._worker is None:
            return
        self._begun = metadata
        assert isinstance(metadata, Plan)
        self._worker.begin(metadata)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        plan = self._get_connector_metadata()
        if self._worker is not None and isinstance(plan, Plan):
            self._worker.load(plan)

    def wait_for_layer_load(self, layer_name: str) -> None:
        if self._worker is not None:
            self._worker.wait_layer(layer_name)

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any,
                      **kwargs: Any) -> None:
        """Blocks are put whole, after the step (wait_for_save)."""

    def wait_for_save(self) -> None:
        """Begins the step's saves. They end on their own: `Worker.begin` guards their blocks. vLLM
        calls it also where the forward pass has raised: then the blocks hold nothing."""
        plan = self._get_connector_metadata()
        if self._worker is not None and isinstance(plan, Plan):
            self._worker.end(plan, raised=sys.exc_info()[0] is not None)

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._worker.take_invalid() if self._worker is not None else set()

    def get_kv_connector_stats(self) -> Optional[HearthConnectorStats]:
        if self._worker is None:
            return None
        self._worker.mover.poll()
        return self._worker.stats.take()

    def shutdown(self) -> None:
        if self._worker is not None:
            self._worker.close()
            atexit.unregister(self._worker.close)
        if self._planner is not None:
            self._client.close()

    # --- Scheduler ---------------------------------------------------------------------------

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int
                                   ) -> tuple[Optional[int], bool]:
        assert self._planner is not None
        return self._planner.matched(request, num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        assert self._planner is not None
        self._planner.allocated(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        assert self._planner is not None
        return self._planner.plan(scheduler_output)

    def request_finished(self, request: Any, block_ids: list[int]
                         ) -> tuple[bool, Optional[dict[str, Any]]]:
        assert self._planner is not None
        self._planner.finished(request)
        return False, None

    def reset_cache(self) -> Optional[bool]:
        """vLLM asks for it when weights changed, or may have: what is stored is not found from now
        on. It stays there for an engine that starts with the weights that the model names."""
        return self._planner.renew() if self._planner is not None else None

    # --- Figures -----------------------------------------------------------------------------

    @classmethod
    def build_kv_connector_stats(cls, data: Optional[dict[str, Any]] = None
                                 ) -> Optional[HearthConnectorStats]:
        return HearthConnectorStats(data=data) if data is not None else HearthConnectorStats()

    @classmethod
    def build_prom_metrics(cls, vllm_config: Any, metric_types: Any, labelnames: list[str],
                           per_engine_labelvalues: dict[int, list[object]]) -> HearthPromMetrics:
        return HearthPromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)

