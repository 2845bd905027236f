"""What the extension hands out: results, entries and errors. Defined here, as Python's own named
tuples and exceptions; the extension makes them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union

Buffer = Any
Fields = Union[Mapping[str, str], Sequence[tuple[str, str]]]
Durability = Literal["volatile", "written", "durable"]
Mode = Literal["direct", "cached"]

_OK = frozenset(["stored", "already-present", "hit", "deleted", "done"])


class Error(Exception):
    """A call failed. `code` is HEARTH_E_*'s number, `name` its name."""

    code: int = 0
    name: str = ""


class LockedError(Error):
    """Another process, or another open in this one, holds the store."""


class ClosedError(Error):
    """The store, namespace or queue is closed."""


class ForkedError(Error):
    """The store was opened before this process was forked."""


class FormatError(Error):
    """Not a store, or one of a newer format."""


class Result(NamedTuple):
    """How one operation came out."""

    status: str
    reason: str
    tier: str
    version: int
    length: int
    delivered: int
    errno: int
    retry_ns: int

    @property
    def ok(self) -> bool:
        """stored, already-present, hit, deleted or done."""
        return self[0] in _OK


class Entry(NamedTuple):
    """One block, as Namespace.list tells of it."""

    key: bytes
    length: int
    version: int
    shard_count: int


def _belong(*types: type) -> None:
    """They are the package's: this module is not to be seen in messages and pickles."""
    for one in types:
        one.__module__ = "hearth"


_belong(Error, LockedError, ClosedError, ForkedError, FormatError, Result, Entry)
