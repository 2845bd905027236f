"""Hearth from Python: the NVMe tier for LLM KV caches.

Keys are bytes (1 to 512). Calls take batches. Every call that may wait releases the GIL; lookups
(`contains`, `prefix`) answer from memory and keep it. All objects may be used from any thread.

A *buffer* is where a block's bytes come from or go to:
  - any object with the buffer protocol, C-contiguous (bytes, memoryview, numpy array …), writable
    for a get; kept alive and unmoved until the operation has ended;
  - `(address, length)`: raw memory, which the caller keeps;
  - `(region, offset, length)`: a part of a registered region;
  - a list of these: the block lies in several pieces, in order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union, final

Buffer = Any
Fields = Union[Mapping[str, str], Sequence[tuple[str, str]]]
Durability = Literal["volatile", "written", "durable"]
Mode = Literal["direct", "cached"]

class Error(Exception):
    """A call failed. `code` is HEARTH_E_*'s number, `name` its name."""
    code: int
    name: str

class LockedError(Error): ...     # another holds the store
class ClosedError(Error): ...     # the store, namespace or queue is closed
class ForkedError(Error): ...     # used after a fork
class FormatError(Error): ...     # not a store, or a newer one

class Result(NamedTuple):
    """How one operation came out."""
    status: str          # "hit", "miss", "stored", "already-present", "throttled", …
    reason: str          # of a miss: "never-put", "evicted", "failed-check", …; else ""
    tier: str            # of a hit: "dram" or "device"; else ""
    version: int
    length: int          # bytes of the block
    delivered: int       # bytes written to the buffer
    errno: int
    retry_ns: int

    @property
    def ok(self) -> bool: ...
    """stored, already-present, hit, deleted or done."""

_Results = list[Result]  # within Namespace, `list` is its method

class Entry(NamedTuple):
    key: bytes
    length: int
    version: int
    shard_count: int

def version() -> str: ...

def open(path: str | Sequence[str], **options: object) -> "Store":
    """Opens a store in a directory (or one a device), or an endpoint ("dir:/path"). Options are
    those of hearth_open in hearth.h: capacity="10GiB" or bytes, memory, staging,
    mode="cache"|"store" …; None values are left out, True and False are 1 and 0."""

@final
class Store:
    def __enter__(self) -> "Store": ...
    def __exit__(self, *exception: object) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    def wait_recovered(self) -> None: ...
    def flush(self, through: int | None = None) -> None: ...
    @property
    def durable_version(self) -> int: ...
    def checkpoint(self) -> None: ...
    def statistics(self) -> dict[str, Any]: ...
    def prometheus(self) -> str: ...
    def namespace(
        self, fields: Fields, *, layout: Literal["packed", "aligned"] = "packed",
        ttl_seconds: int = 0, cap_bytes: int = 0,
    ) -> "Namespace": ...
    def register(
        self, buffer: Buffer | None = None, *, address: int = 0, length: int = 0,
        descriptor: int = -1,
    ) -> "Region":
        """Registers memory for I/O without copies: a writable buffer (kept alive) or raw memory."""
    def computed(self, tokens: int, seconds: float) -> None:
        """Tells that so many tokens were prefilled in so long; for `prefix_worth`."""
    def queue(self, capacity: int = 4096) -> "Queue": ...
    def hint(
        self,
        kind: Literal["chain", "pages", "progress", "session", "touched", "cancel", "release",
                      "admitted", "evicted", "ended"],
        *, space: "Namespace | None" = None, keys: Sequence[bytes] = (), request: int = 0,
        session: int = 0, when_ns: int = 0,
        state: Literal["open", "tool-pending", "idle", "one-shot", "closed"] = "open",
        step: int = 0, layer: int = 0, first: int = 0, number: int = 0, confidence: float = 0.0,
    ) -> int: ...

@final
class Region:
    """Registered memory; `region[offset:offset + length]` is a buffer."""
    number: int
    address: int
    length: int
    def __getitem__(self, key: slice, /) -> tuple["Region", int, int]: ...
    def unregister(self) -> None:
        """BufferError while batches use it: drain them first."""

@final
class Namespace:
    store: Store
    def close(self) -> None: ...
    def purge(self) -> None: ...

    # From memory, at once.
    def contains(self, key: bytes) -> bool: ...
    def contains_many(self, keys: Sequence[bytes]) -> list[bool]: ...
    def prefix(self, keys: Sequence[bytes]) -> int: ...
    def prefix_worth(
        self, keys: Sequence[bytes], *, tokens_per_block: int,
        tokens_per_second: float | None = None, tokens_after: int = 0, layers: int = 1,
        starts_in: float = 0, loads_in: float = 0,
    ) -> dict[str, Any]:
        """`blocks` worth loading of those `present`, `declined_bytes`, `ready_in` and `gain` in
        seconds, `is_probe`. Without a rate: what `Store.computed` told, or a guess."""

    # One batch, waits. One Result a key.
    def get(
        self, keys: Sequence[bytes], buffers: Sequence[Buffer], *, mode: Mode = "direct",
        shards: tuple[int, int] | None = None, byte_range: tuple[int, int] | None = None,
        timeout: float | None = None,
    ) -> list[Result]:
        """`shards` is (first, count), `byte_range` (offset, length), for all keys of the call."""
    def put(
        self, keys: Sequence[bytes], buffers: Sequence[Buffer], *,
        parents: Sequence[bytes | None] | None = None,
        shard_lengths: Sequence[int] | None = None, durability: Durability = "written",
        replace: bool = False, ttl_seconds: int = 0, timeout: float | None = None,
    ) -> list[Result]: ...
    def delete(self, keys: Sequence[bytes], *, timeout: float | None = None) -> list[Result]: ...
    def touch(self, keys: Sequence[bytes]) -> list[Result]: ...
    def pin(self, keys: Sequence[bytes], seconds: float) -> list[Result]: ...
    def unpin(self, keys: Sequence[bytes]) -> list[Result]: ...
    def read(self, key: bytes) -> bytes | None:
        """The block's bytes in new memory; None if it is not there."""
    def list(self) -> Iterable[Entry]:
        """Every block; reads from the device as it goes."""

    # The same for asyncio: a batch is one future of the running loop.
    async def aget(
        self, keys: Sequence[bytes], buffers: Sequence[Buffer], **how: Any
    ) -> _Results: ...
    async def aput(
        self, keys: Sequence[bytes], buffers: Sequence[Buffer], **how: Any
    ) -> _Results: ...
    async def adelete(self, keys: Sequence[bytes], **how: Any) -> _Results: ...

@final
class Queue:
    """Batches under way: submit them, and drain what has ended. For engines with their own loop."""
    def fileno(self) -> int:
        """Readable while finished batches wait."""
    def wake(self) -> None:
        """Makes the descriptor readable, for a loop that waits on it for other things, too. Never
        waits, nor lets other threads of this interpreter run."""
    def submit_get(
        self, space: Namespace, keys: Sequence[bytes], buffers: Sequence[Buffer], **how: Any
    ) -> int:
        """A batch number. `how` is as in Namespace.get. Never waits for I/O; more operations than
        the queue's capacity are handed on as others end."""
    def submit_put(
        self, space: Namespace, keys: Sequence[bytes], buffers: Sequence[Buffer], **how: Any
    ) -> int: ...
    def submit_delete(self, space: Namespace, keys: Sequence[bytes]) -> int: ...
    def submit_rows(
        self, kind: Literal["get", "put"], space: Namespace, keys: Sequence[bytes], region: Region,
        rows: Sequence[int], row_stride: int, row_length: int, **how: Any
    ) -> int:
        """Key i's block is row_length bytes at rows[i] * row_stride of the region; rows may be a
        numpy int32 or int64 array."""
    def drain(self) -> list[tuple[int, list[Result]]]:
        """Batches that have ended, whole, their results in the order of their keys. Never waits."""
    def wait(self, timeout: float | None = None) -> list[tuple[int, list[Result]]]:
        """The same, waiting for the first one; with none pending, nothing at once."""
    def cancel(self, batch: int) -> None: ...
    @property
    def pending(self) -> int:
        """Batches submitted and not yet drained."""
    def close(self) -> None: ...
