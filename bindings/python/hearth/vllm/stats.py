"""The connector's figures, in the form in which vLLM carries, logs and publishes them."""

from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import (
    KVConnectorPromMetrics,
    KVConnectorStats,
)

# name -> (what it counts, name of its second label or "")
COUNTERS: dict[str, tuple[str, str]] = {
    "loaded_blocks": ("Blocks loaded into the KV cache, every byte checked.", ""),
    "loaded_bytes": ("Bytes loaded into the KV cache.", ""),
    "load_failures": ("Blocks that were found and did not load, by reason.", "reason"),
    "load_wait_seconds": ("Time that layers waited for their KV.", ""),
    "saved_blocks": ("Blocks handed to the store, by how it came out.", "status"),
    "saved_bytes": ("Bytes that the store took.", ""),
    "saves_dropped": ("Blocks not handed to the store, by reason.", "reason"),
    "save_wait_seconds": ("Time that steps waited for saves of blocks they write.", ""),
}


class HearthConnectorStats(KVConnectorStats):
    """Sums since the last step; `data` is {name: {label: value}}."""

    def add(self, name: str, value: float, label: str = "") -> None:
        if value:
            of = self.data.setdefault(name, {})
            of[label] = of.get(label, 0) + value

    def reset(self) -> None:
        self.data = {}

    def is_empty(self) -> bool:
        return not self.data

    def aggregate(self, other: KVConnectorStats) -> "HearthConnectorStats":
        for name, labels in other.data.items():
            for label, value in labels.items():
                self.add(name, value, label)
        return self

    def reduce(self) -> dict[str, int | float]:
        return {name + (f"[{label}]" if label else ""): round(value, 6)
                for name, labels in self.data.items() for label, value in labels.items()}

    def take(self) -> "HearthConnectorStats | None":
        """What was summed, leaving nothing."""
        if not self.data:
            return None
        taken = HearthConnectorStats(data=self.data)
        self.data = {}
        return taken


class HearthPromMetrics(KVConnectorPromMetrics):
    """The same as Prometheus counters `vllm:kv_hearth_*`."""

    def __init__(self, vllm_config: Any, metric_types: Any, labelnames: list[str],
                 per_engine_labelvalues: dict[int, list[object]]) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        self._counters = {
            name: self._counter_cls(
                name=f"vllm:kv_hearth_{name}", documentation=text,
                labelnames=[*labelnames, *([label] if label else [])])
            for name, (text, label) in COUNTERS.items()}

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        engine = self.per_engine_labelvalues[engine_idx]
        for name, labels in transfer_stats_data.items():
            for label, value in labels.items():
                values = [*engine, *([label] if COUNTERS[name][1] else [])]
                self._counters[name].labels(*values).inc(value)
