"""Stand-ins of the narrow interfaces between vLLM and HearthConnector: what the connector's worker
sees of a model, and a mover that records instead of moving."""

import threading
from typing import Any

import torch
from vllm.model_executor.layers.attention.attention import Attention

from hearth.vllm.planner import Load, Plan, Save
from hearth.vllm.stats import HearthConnectorStats
from hearth.vllm.worker import Worker


def attention() -> Any:
    """An attention layer of vLLM's own class, without what its constructor needs."""
    return Attention.__new__(Attention)


class FakePages:
    """Two shards of one layer each."""

    def __init__(self) -> None:
        self.shard_of = {"early": 0, "late": 1}
        self.starts, self.block_bytes = [0, 1, 2], 8192
        self.lengths, self.shards = [4096, 4096], [[object()], [object()]]
        self.device, self.tensors = torch.device("cpu"), []


class FakeSpace:
    def __init__(self, fields: dict[str, str], ttl: int = 0) -> None:
        self.fields, self.ttl, self.purged = fields, ttl, False

    def contains_many(self, keys: Any) -> list[bool]:
        return [False] * len(keys)

    def purge(self) -> None:
        self.purged = True

    def close(self) -> None:
        pass


class FakeStore:
    closed = True  # nothing to give back

    def __init__(self) -> None:
        self.spaces: list[FakeSpace] = []

    def namespace(self, fields: Any, *, layout: str, ttl_seconds: int, cap_bytes: int) -> Any:
        self.spaces.append(FakeSpace(dict(fields), ttl_seconds))
        return self.spaces[-1]

    def hint(self, kind: str, **what: Any) -> int:
        return 0


class FakeMover:
    """Records what it is told, and by which thread."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.threads: set[int] = set()
        self.failing: dict[int, str] = {}

    def _note(self, *what: Any) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(what)

    def load(self, loads: Any, space: Any) -> None:
        self._note("load", space)

    def wait_shard(self, shard: int) -> None:
        self._note("wait", shard)

    def end_loads(self) -> dict[int, str]:
        self._note("end")
        failing, self.failing = self.failing, {}
        return failing

    def save(self, saves: Any, space: Any) -> int:
        self._note("save", space)
        return 0

    def poll(self) -> None:
        self._note("poll")

    def wait_saves(self, blocks: set[int], seconds: float) -> None:
        self._note("wait_saves", seconds)

    def close(self) -> None:
        self._note("close")

    def named(self, name: str) -> list[Any]:
        return [call for call in self.calls if call[0] == name]


def worker() -> Any:
    """A worker as it is after its start, on fakes."""
    made = Worker.__new__(Worker)
    made.pages, made.mover, made._store = FakePages(), FakeMover(), FakeStore()
    made.stats = HearthConnectorStats()
    made._fields, made._mine = {"model": "m"}, {"ttl_seconds": 0, "cap_bytes": 0}
    made._server = type("NoServer", (), {"close": lambda self: None})()
    made._closed = False
    made._reset()
    made.space = made._spaces[0] = made._open_space(0)
    return made


def plan(loads: int = 0, saves: int = 0, epoch: int = 0) -> Plan:
    return Plan(
        [Load("r", [b"k%d" % i for i in range(loads)], list(range(loads)))] if loads else [],
        [Save("r", [b"s%d" % i for i in range(saves)], list(range(10, 10 + saves)), None)]
        if saves else [], [], epoch)
