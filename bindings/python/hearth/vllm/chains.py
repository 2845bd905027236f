"""Chains learnt from what vLLM does with a request: which block comes before which.

vLLM looks a request's chunks up one by one in the order of their tokens, and stores them mostly in
that order. Both are taken down here, a list a request and KV group, so that a put can name its
parent. Where vLLM says how far a chunk reaches in the request, that decides, since stores of
sliding windows come out of order. What is learnt is advice: a wrong parent costs placement, never
a byte.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Optional

GROUP_BYTES = 4  # the KV group's index ends an offload key


class Chain:
    """The order of one request's keys, a run for each KV group."""

    __slots__ = ("keys", "last", "parents")

    def __init__(self) -> None:
        self.parents: dict[bytes, Optional[bytes]] = {}
        self.last: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []  # in the order in which they were first seen

    def follow(self, key: bytes) -> Optional[bytes]:
        """Notes that `key` came next, and returns its parent, which a key that is known keeps."""
        group = key[-GROUP_BYTES:]
        if key in self.parents:
            parent = self.parents[key]
        else:
            parent = self.last.get(group)
            self.parents[key] = parent
            self.keys.append(key)
        self.last[group] = key
        return parent


class Chains:
    """The chains of the requests that live."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}

    def __len__(self) -> int:
        return len(self._chains)

    def learn(self, seen: Iterable[tuple[bytes, Any]]) -> dict[str, list[bytes]]:
        """Takes lookups down, in their order; returns the keys that were new, by request."""
        fresh: dict[str, list[bytes]] = {}
        for key, context in seen:
            request = context.req_id
            chain = self._chains.get(request)
            if chain is None:
                chain = self._chains[request] = Chain()
            known = len(chain.keys)
            chain.follow(key)
            if len(chain.keys) > known:
                fresh.setdefault(request, []).append(key)
        return fresh

    def parents(self, keys: Sequence[bytes], context: Any) -> list[Optional[bytes]]:
        """Each key's parent for a put of these keys of the request, None where it is not known."""
        chain = self._chains.get(context.req_id)
        if chain is None:
            chain = self._chains[context.req_id] = Chain()
        position = context.get_offload_key_position
        ends = [position(key) for key in keys]
        order: Iterable[int] = range(len(keys))
        if None not in ends:
            order = sorted(order, key=ends.__getitem__)
        result: list[Optional[bytes]] = [None] * len(keys)
        for index in order:
            parent = chain.follow(keys[index])
            if parent is not None and ends[index] is not None:
                before = position(parent)
                if before is not None and before >= ends[index]:
                    parent = None  # a backfill: what was stored last lies behind it
            result[index] = parent
        return result

    def end(self, request: str) -> list[bytes]:
        """Forgets the request and returns its keys, in order."""
        chain = self._chains.pop(request, None)
        return chain.keys if chain is not None else []
