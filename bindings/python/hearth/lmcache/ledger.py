"""What an adapter knows to be stored: each block's key with its size, so that usage can be told by
salt and LMCache's eviction policy knows what there is. A key can have a block in each of several
layouts, so a block is named by its place: the namespace and the Hearth key.

The store is the truth; this is a copy that LMCache needs. It is filled from the store at open (in
the background), follows stores and deletes, and is compared with the store a few thousand keys at
a time: what the store evicted on its own, or lost to damage, leaves the ledger within one sweep.
"""

import threading
from typing import NamedTuple

# Keys compared in one step: about a millisecond.
SWEEP_KEYS = 4096


# A namespace and a key in it.
Place = tuple[object, bytes]


class Known(NamedTuple):
    key: object
    size: int


class Ledger:
    """Known blocks. Safe from any thread."""

    def __init__(self):
        self._mutex = threading.Lock()
        self._known: dict[Place, Known] = {}
        self._sweep: list = []

    def __len__(self) -> int:
        return len(self._known)

    def add(self, entries: list[tuple[Place, Known]]) -> tuple[list, list[int], list, list[int]]:
        """Enters blocks. Returns the keys with the bytes that each adds, 0 where it was known, and
        those that were known with another size, with that size."""
        keys, added, former, sizes = [], [], [], []
        with self._mutex:
            for place, known in entries:
                before = self._known.get(place)
                self._known[place] = known
                keys.append(known.key)
                if before is None:
                    added.append(known.size)
                elif before.size == known.size:
                    added.append(0)
                else:
                    former.append(known.key)
                    sizes.append(before.size)
                    added.append(known.size)
        return keys, added, former, sizes

    def remove(self, places: list[Place]) -> tuple[list, list[int]]:
        """Removes blocks; returns the keys of those that were known, with their sizes."""
        removed, sizes = [], []
        with self._mutex:
            for place in places:
                known = self._known.pop(place, None)
                if known is not None:
                    removed.append(known.key)
                    sizes.append(known.size)
        return removed, sizes

    def snapshot(self) -> tuple[list, list[int]]:
        with self._mutex:
            known = self._known.values()
            return [one.key for one in known], [one.size for one in known]

    def sweep(self) -> list[Place]:
        """Compares the next few thousand blocks with the store; returns those that are gone."""
        with self._mutex:
            if not self._sweep:
                self._sweep = list(self._known)
            chosen = self._sweep[-SWEEP_KEYS:]
            del self._sweep[-SWEEP_KEYS:]
            grouped: dict[object, list] = {}
            for space, encoded in chosen:
                grouped.setdefault(space, []).append(encoded)
        gone = []
        for space, keys in grouped.items():
            found = space.contains_many(keys)
            gone += [(space, key) for key, there in zip(keys, found) if not there]
        return gone
