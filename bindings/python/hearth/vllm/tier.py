"""HearthTier: a secondary tier of vLLM's offloading (`TieringOffloadingSpec`).

vLLM keeps chunks of KV in a shared-memory buffer, its primary tier, and hands this tier jobs that
copy whole rows of it. The buffer is registered once as a region, so rows go to the device and come
from it without a copy. All methods run in the scheduler's process and none waits for I/O but
`drain_jobs` and `shutdown`.

Invariants: a job ends exactly once, in `get_finished_jobs`, after the device let go of its rows; a
load reports as successful only the keys whose bytes were checked; a key that failed to load for any
reason is a miss at the next lookup, so that vLLM computes it anew instead of asking again.
"""

import os
import time
import zlib
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Optional

import numpy as np
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.metrics import (
    OffloadingConnectorStats,
)
from vllm.logger import init_logger
from vllm.v1.kv_offload.base import (
    Locality,
    LookupResult,
    Medium,
    OffloadingCounterMetadata,
    OffloadingEvent,
    OffloadingMetricMetadata,
    OffloadKey,
    ReqContext,
    RequestOffloadingContext,
    ScheduleEndContext,
)
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob

import hearth
from hearth.vllm import options, spaces
from hearth.vllm.chains import Chains

logger = init_logger("vllm.hearth.tier")

WHERE = "HearthTier"
# A put that is refused for want of room in memory is tried again within this time.
RETRY_SECONDS = 5.0
DEFAULTS: dict[str, Any] = {
    "path": None, "salt": "", "durability": "written", "load_timeout_s": 30.0, "ttl_seconds": 0,
    "cap_bytes": 0, "enable_kv_events": False, "locality": None,
}


class HearthTierMetrics:
    """Names of what this tier counts beyond vLLM's own figures of a tier."""

    LOAD_MISSES = "vllm:kv_offload_tiering_load_misses"
    STORE_OUTCOMES = "vllm:kv_offload_tiering_store_outcomes"
    LOADED_CHUNKS = "vllm:kv_offload_tiering_loaded_chunks"


class Transfer:
    """One job under way: what is still out, and what came of the rest."""

    __slots__ = ("began", "good", "job", "keys", "length", "open", "parents", "retry_at", "rows")

    def __init__(self, job: TransferJob, keys: list[bytes]) -> None:
        self.job = job
        self.keys = keys
        self.rows: list[int] = [int(row) for row in job.chunk_ids]
        self.parents: Optional[list[Optional[bytes]]] = None
        self.good: set[bytes] = set()
        self.open = list(range(len(keys)))  # indices of keys that are out or wait for a retry
        self.began = time.monotonic()
        self.retry_at = 0.0


class HearthTier(SecondaryTierManager):
    """Configured by `{"type": "HearthTier", "module_path": "hearth.vllm", "path": ..., "capacity":
    ...}` in `secondary_tiers`; see docs/vllm.md."""

    medium: ClassVar[Medium] = Medium.STORAGE

    def __init__(self, offloading_spec: Any, primary_kv_view: memoryview, tier_type: str,
                 backpressure_detector: Any = None, **config: Any) -> None:
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        mine, store = options.split(WHERE, config, DEFAULTS)
        if mine["durability"] not in ("volatile", "written", "durable"):
            raise options.ConfigurationError(
                f"{WHERE}: durability is volatile, written or durable, not {mine['durability']!r}")
        self._durability: str = mine["durability"]
        self._timeout = options.number(
            WHERE, "load_timeout_s", mine["load_timeout_s"], 0.001, 86400.0)
        ttl = options.whole(WHERE, "ttl_seconds", mine["ttl_seconds"], 0, 2**31)
        cap = options.whole(WHERE, "cap_bytes", mine["cap_bytes"], 0, 2**62)
        try:
            self.locality = None if mine["locality"] is None else Locality(mine["locality"])
        except ValueError:
            raise options.ConfigurationError(
                f"{WHERE}: locality is LOCAL or REMOTE, not {mine['locality']!r}") from None
        view = primary_kv_view
        if view.ndim != 2 or not view.c_contiguous or view.readonly:
            raise options.ConfigurationError(
                f"{WHERE}: the primary tier's memory must be a writable table of rows without gaps")
        row = self.block_size_bytes
        fields = spaces.of_tier(WHERE, offloading_spec, row, str(mine["salt"]))
        parallel = offloading_spec.config.parallel
        where = options.paths(
            WHERE, mine["path"], parallel.data_parallel_index, parallel.data_parallel_size)

        self._events: Optional[list[OffloadingEvent]] = None
        if mine["enable_kv_events"]:
            if offloading_spec.kv_events_config.enable_kv_cache_events:
                self._events = []
            else:
                logger.warning("enable_kv_events is set on tier '%s', but vLLM publishes no KV "
                               "events (kv_events_config): none are made", tier_type)

        # vLLM's primary tier is the DRAM tier here: a second one below it would hold the same
        # chunks, and cost each of them a copy.
        if store.get("staging") is None:
            store["staging"] = 0
            store.setdefault("memory", "256MiB")
        self._store = options.acquire(WHERE, where, options.sized(WHERE, store, row))
        try:
            self._space = self._store.namespace(fields, ttl_seconds=ttl, cap_bytes=cap)
            self._region = self._register(primary_kv_view)
            self._queue = self._store.queue()
        except BaseException:
            options.release(self._store)
            raise
        self._transfers: dict[int, Transfer] = {}  # by batch
        self._waiting: list[Transfer] = []         # for a retry
        self._ended: list[JobResult] = []          # of jobs that ended while they were submitted
        self._chains = Chains()
        self._seen: list[Any] = []  # of one step: a context, its keys, the next context ...
        self._avoid: set[bytes] = set()
        self._counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self._closed = False
        self._bind_lookup()
        logger.info("Hearth %s at %s: rows of %d bytes", hearth.version(), ", ".join(where), row)

    def _register(self, view: memoryview) -> Any:
        """The primary tier's memory as a region: shared by its file where it is one whole file."""
        table = np.asarray(view)
        address, length = table.ctypes.data, table.nbytes
        del table  # it would keep the view from being released at shutdown
        descriptor = _shared_file(address, length)
        try:
            return self._store.register(address=address, length=length, descriptor=descriptor)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    # --- Lookups ---------------------------------------------------------------------------

    def _bind_lookup(self) -> None:
        """Makes `self.lookup` a closure over what it needs. vLLM asks for each chunk of each
        request, so this is the one hot path: no attribute is looked up on it."""
        contains, note, avoid = self._space.contains, self._seen.append, self._avoid
        hit, miss = LookupResult.HIT, LookupResult.MISS
        last: Optional[ReqContext] = None

        def lookup(key: OffloadKey, req_context: ReqContext) -> LookupResult:
            nonlocal last
            if req_context is not last:  # it marks whose the keys after it are
                last = req_context
                note(req_context)
            note(key)
            return hit if contains(key) else miss

        def careful(key: OffloadKey, req_context: ReqContext) -> LookupResult:
            nonlocal last
            if req_context is not last:
                last = req_context
                note(req_context)
            note(key)
            return hit if contains(key) and key not in avoid else miss

        self.lookup = careful if avoid else lookup  # type: ignore[method-assign]

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        """Whether the chunk is there: from memory, at once. Hidden by `_bind_lookup`."""
        self._seen.extend((req_context, key))
        there = self._space.contains(key) and key not in self._avoid
        return LookupResult.HIT if there else LookupResult.MISS

    # --- Jobs ------------------------------------------------------------------------------

    def submit_store(self, job_metadata: TransferJob) -> None:
        self._learn()
        transfer = Transfer(job_metadata, list(job_metadata.keys))
        transfer.parents = self._chains.parents(transfer.keys, job_metadata.req_context)
        self._submit(transfer)

    def submit_load(self, job_metadata: TransferJob) -> None:
        self._submit(Transfer(job_metadata, list(job_metadata.keys)))

    def _submit(self, transfer: Transfer) -> None:
        """Hands what is open of a transfer to the store."""
        indices = transfer.open
        if not indices:
            self._ended.append(self._finish(transfer))
            return
        keys = [transfer.keys[index] for index in indices]
        rows = np.fromiter((transfer.rows[index] for index in indices), np.int64, len(indices))
        row = self.block_size_bytes
        try:
            if transfer.job.is_promotion:
                batch = self._queue.submit_rows(
                    "get", self._space, keys, self._region, rows, row, row,
                    timeout=self._timeout)
            else:
                parents = transfer.parents or []
                batch = self._queue.submit_rows(
                    "put", self._space, keys, self._region, rows, row, row,
                    parents=[parents[index] for index in indices],
                    durability=self._durability,
                    replace=any(key in self._avoid for key in keys))
        except options.REFUSALS as error:
            # Nothing was handed over: the whole job failed, which vLLM understands. It must not be
            # raised: vLLM has the job on its list already, and would wait for its end for ever.
            logger.error("Hearth took none of job %d: %s", transfer.job.job_id, error)
            self._ended.append(self._finish(transfer))
            return
        self._transfers[batch] = transfer

    def get_finished_jobs(self) -> Iterable[JobResult]:
        now = time.monotonic()
        for batch, results in self._queue.drain():
            self._take(batch, results)
        if self._waiting:
            due = [one for one in self._waiting if one.retry_at <= now]
            self._waiting = [one for one in self._waiting if one.retry_at > now]
            for transfer in due:
                self._submit(transfer)
        ended, self._ended = self._ended, []
        return ended

    def _take(self, batch: int, results: list[Any]) -> None:
        """Notes how a batch came out; ends its job, or keeps it for a retry."""
        transfer = self._transfers.pop(batch, None)
        if transfer is None:
            return
        load = transfer.job.is_promotion
        again: list[int] = []
        wait = 0.0
        for index, result in zip(transfer.open, results):
            key = transfer.keys[index]
            if load:
                if result.status == "hit":
                    transfer.good.add(key)
                else:
                    self._failed_load(key, result)
            elif result.ok:
                transfer.good.add(key)
                if key in self._avoid:
                    self._avoid.remove(key)
                    if not self._avoid:
                        self._bind_lookup()
                self._count(HearthTierMetrics.STORE_OUTCOMES, result.status)
            elif (result.status == "throttled"
                  and time.monotonic() - transfer.began < RETRY_SECONDS and not self._closed):
                again.append(index)
                wait = max(wait, result.retry_ns / 1e9, 0.001)
            else:
                self._count(HearthTierMetrics.STORE_OUTCOMES, result.status)
        if again:
            transfer.open = again
            transfer.retry_at = time.monotonic() + wait
            self._waiting.append(transfer)
            return
        self._ended.append(self._finish(transfer))

    def _failed_load(self, key: bytes, result: Any) -> None:
        """A key that did not load is a miss from now on, whatever the reason."""
        self._count(HearthTierMetrics.LOAD_MISSES, result.reason or result.status)
        if self._space.contains(key):
            # Still listed: a deadline or an I/O error. Not asked for again until it is stored anew.
            if not self._avoid:
                self._avoid.add(key)
                self._bind_lookup()
            self._avoid.add(key)
        self._event([key], removed=True)

    def _finish(self, transfer: Transfer) -> JobResult:
        job, good = transfer.job, transfer.good
        taken = [key for key in transfer.keys if key in good]
        whole = len(taken) == len(transfer.keys)
        if job.is_promotion:
            self._counts[HearthTierMetrics.LOADED_CHUNKS, (self.tier_type,)] += len(taken)
        elif taken:
            self._event(taken, removed=False)
        return JobResult(
            job_id=job.job_id, success=whole,
            successful_keys=None if whole or not taken else taken,
            transfer_time=time.monotonic() - transfer.began,
            transfer_bytes=len(taken) * self.block_size_bytes)

    def has_pending_work(self) -> bool:
        return bool(self._transfers or self._waiting or self._ended)

    def drain_jobs(self) -> None:
        """Waits until no job is out; what ended is told by the next `get_finished_jobs`."""
        while self._transfers or self._waiting:
            if self._waiting and not self._transfers:
                time.sleep(max(0.0, min(one.retry_at for one in self._waiting) - time.monotonic()))
            for batch, results in self._queue.wait(0.1) if self._transfers else ():
                self._take(batch, results)
            waiting, self._waiting = self._waiting, []
            now = time.monotonic()
            for transfer in waiting:
                if transfer.retry_at <= now:
                    self._submit(transfer)
                else:
                    self._waiting.append(transfer)

    # --- What vLLM tells of requests: hints -------------------------------------------------

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        self._hint("session", request=_number(req_context.req_id),
                   session=_session(req_context), state="open")
        return RequestOffloadingContext()

    def on_schedule_end(self, context: ScheduleEndContext) -> None:
        self._learn()
        for request in context.preempted_req_ids or ():
            self._hint("cancel", request=_number(request))

    def _learn(self) -> None:
        """Takes the lookups since the last time down, and hints the chains that they begin."""
        if len(self._seen) < 2:
            return
        seen: list[tuple[bytes, ReqContext]] = []
        context: Optional[ReqContext] = None
        for one in self._seen:
            if not isinstance(one, bytes):
                context = one
            elif context is not None:
                seen.append((one, context))
        self._seen.clear()
        if context is not None:
            self._seen.append(context)  # keys that follow without a mark are still its
        for request, keys in self._chains.learn(seen).items():
            self._hint("chain", space=self._space, keys=keys, request=_number(request))

    def touch(self, keys: Collection[OffloadKey], req_context: ReqContext) -> None:
        if keys:
            self._hint("touched", space=self._space, keys=list(keys),
                       request=_number(req_context.req_id))

    def on_request_finished(self, req_context: ReqContext) -> None:
        self._learn()
        request = req_context.req_id
        keys = self._chains.end(request)
        session = _session(req_context)
        if session:
            # It may go on, and read them again: when is for the store to learn.
            what = {"space": self._space, "keys": keys} if keys else {}
            self._hint("session", request=_number(request), session=session, state="idle", **what)
        elif keys:
            self._hint("release", space=self._space, keys=keys, request=_number(request))

    def _hint(self, kind: Any, **what: Any) -> None:
        """A hint is advice: one that is not taken must not stop the engine."""
        try:
            self._store.hint(kind, **what)
        except options.REFUSALS as error:
            logger.warning_once("Hearth took no hint: %s", error)

    # --- Events and figures ------------------------------------------------------------------

    def _event(self, keys: list[bytes], removed: bool) -> None:
        if self._events is not None:
            self._events.append(OffloadingEvent(
                keys=[OffloadKey(key) for key in keys], medium=self.medium, removed=removed,
                locality=self.locality))

    def take_events(self) -> Iterable[OffloadingEvent]:
        if self._events is not None:
            events, self._events = self._events, []
            yield from events

    def _count(self, name: str, label: str) -> None:
        self._counts[name, (self.tier_type, label)] += 1

    @classmethod
    def build_metric_definitions(cls, extra_config: dict[str, Any]
                                 ) -> dict[str, OffloadingMetricMetadata]:
        return {
            HearthTierMetrics.LOAD_MISSES: OffloadingCounterMetadata(
                documentation="Chunks that a lookup found and a load did not, by reason.",
                labelnames=("tier", "reason")),
            HearthTierMetrics.STORE_OUTCOMES: OffloadingCounterMetadata(
                documentation="Chunks handed to the tier, by how their store came out.",
                labelnames=("tier", "status")),
            HearthTierMetrics.LOADED_CHUNKS: OffloadingCounterMetadata(
                documentation="Chunks loaded into the primary tier, every byte checked.",
                labelnames=("tier",)),
        }

    def get_stats(self) -> Optional[OffloadingConnectorStats]:
        if not self._counts:
            return None
        stats = OffloadingConnectorStats()
        for (name, labels), value in self._counts.items():
            stats.increase_counter(name, value, labels)
        self._counts.clear()
        return stats

    def shutdown(self) -> None:
        """Ends what is under way and closes the store. vLLM unmaps the buffer after this."""
        if self._closed:
            return
        self._closed = True
        try:
            self.drain_jobs()
            self._queue.close()
            self._region.unregister()
            self._space.close()
        finally:
            options.release(self._store)


def _number(text: str) -> int:
    """A request's or session's number for hints: a hash of its name, never 0."""
    return (zlib.crc32(text.encode()) | zlib.adler32(text.encode()) << 32) or 1


def _session(context: ReqContext) -> int:
    """The session's number, if the client names one in kv_transfer_params."""
    name = (context.kv_transfer_params or {}).get("session_id")
    return 0 if name is None else _number(str(name))


def _shared_file(address: int, length: int) -> int:
    """A descriptor of the /dev/shm file that is mapped from its start over exactly this memory, or
    -1. vLLM may join several files into one range; then the memory is registered by address."""
    page = os.sysconf("SC_PAGE_SIZE")
    end = (address + length + page - 1) // page * page
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                parts = line.rstrip("\n").split(None, 5)
                low, high = (int(part, 16) for part in parts[0].split("-"))
                if low != address:
                    continue
                whole = high >= end and int(parts[2], 16) == 0 and len(parts) == 6
                if not whole or not parts[5].startswith("/dev/shm/"):
                    return -1
                name = parts[5].removesuffix(" (deleted)")
                descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC)
                if os.fstat(descriptor).st_ino != int(parts[4]):
                    os.close(descriptor)
                    return -1
                return descriptor
    except (OSError, ValueError):
        pass
    return -1
