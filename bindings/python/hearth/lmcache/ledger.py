"""What an adapter knows to be stored: each key with its size, so that usage can be told by salt and
LMCache's eviction policy knows what there is.

The store is the truth; this is a copy that LMCache needs. It is filled from the store at open (in
the background), follows stores and deletes, and is compared with the store a few thousand keys at
a time: what the store evicted on its own, or lost to damage, leaves the ledger within one sweep.
"""

import threading
from typing import NamedTuple

# Keys compared in one step: about a millisecond.
SWEEP_KEYS = 4096


class Known(NamedTuple):
    size: int
    space: object
    encoded: bytes


class Ledger:
    """Known keys. Safe from any thread."""

    def __init__(self):
        self._mutex = threading.Lock()
        self._known: dict[object, Known] = {}
        self._sweep: list = []

    def __len__(self) -> int:
        return len(self._known)

    def add(self, entries: list[tuple[object, Known]]) -> tuple[list, list[int], list, list[int]]:
        """Enters keys. Returns the keys with the bytes that each adds, 0 where it was known, and
        those that were known with another size, with that size."""
        keys, added, former, sizes = [], [], [], []
        with self._mutex:
            for key, known in entries:
                before = self._known.get(key)
                self._known[key] = known
                keys.append(key)
                if before is None:
                    added.append(known.size)
                elif before.size == known.size:
                    added.append(0)
                else:
                    former.append(key)
                    sizes.append(before.size)
                    added.append(known.size)
        return keys, added, former, sizes

    def remove(self, keys: list) -> tuple[list, list[int]]:
        """Removes keys; returns those that were known, with their sizes."""
        removed, sizes = [], []
        with self._mutex:
            for key in keys:
                known = self._known.pop(key, None)
                if known is not None:
                    removed.append(key)
                    sizes.append(known.size)
        return removed, sizes

    def snapshot(self) -> tuple[list, list[int]]:
        with self._mutex:
            return list(self._known), [known.size for known in self._known.values()]

    def sweep(self) -> list:
        """Compares the next few thousand keys with the store; returns those that are gone."""
        with self._mutex:
            if not self._sweep:
                self._sweep = list(self._known)
            chosen = self._sweep[-SWEEP_KEYS:]
            del self._sweep[-SWEEP_KEYS:]
            grouped: dict[object, list] = {}
            for key in chosen:
                known = self._known.get(key)
                if known is not None:
                    grouped.setdefault(known.space, []).append((key, known.encoded))
        gone = []
        for space, pairs in grouped.items():
            found = space.contains_many([encoded for _, encoded in pairs])
            gone += [key for (key, _), there in zip(pairs, found) if not there]
        return gone
