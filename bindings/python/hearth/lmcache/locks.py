"""LMCache's locks on blocks: a count for each key, and a pin in Hearth while it is above zero.

A lookup is answered from memory and may not wait, so the count is taken at once and the pins follow
from a thread of this table, many in one batch, some milliseconds later. Until then an eviction can
take the block; the load then misses, which LMCache is told for that key. A lock that has gone by
then never costs a pin. Pins have a time
limit in the store, so that a dead process holds nothing, and are renewed while the lock is held. A
lock that is held for longer than `limit` seconds has been forgotten by its holder: its pin is let
go and counted; `hold` is for what is never let go. Where pins would hold more than the store grants
(a quarter of its capacity) a block stays unpinned, and that is counted, too.

One thread pins and unpins, so what Hearth has always becomes what the counts say.
"""

import logging
import math
import threading
import time

logger = logging.getLogger(__name__)

# Lookups come in bursts: the pins of one go in one batch, and do not contend with the lookups.
_GATHER_SECONDS = 0.01


class LockTable:
    """Counts by (namespace, key); safe from any thread."""

    def __init__(self, seconds: float, limit: float, limit_is_normal: bool = False):
        self._seconds = seconds
        self._limit = limit
        self._limit_is_normal = limit_is_normal
        self._mutex = threading.Lock()
        self._counts: dict[tuple, int] = {}
        self._since: dict[tuple, float] = {}
        self._changed: set[tuple] = set()
        self._kept: set[tuple] = set()
        self._deleting: set[tuple] = set()
        self._pinned: set[tuple] = set()  # of the thread alone
        self._wake = threading.Event()
        self._closed = False
        self.unpinned = 0
        self.forgotten = 0
        self.failures = 0
        self._thread = threading.Thread(target=self._run, name="hearth-locks", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def held(self) -> int:
        """Blocks locked now."""
        return len(self._counts) - len(self._kept)

    def pinned(self) -> int:
        """Blocks pinned in the store now."""
        return len(self._pinned)

    def lock(self, space, keys: list[bytes]) -> list[bytes]:
        """One more lock on each of the keys; returns those that it took: not what is being
        deleted."""
        now = time.monotonic()
        with self._mutex:
            if self._deleting:
                keys = [key for key in keys if (space, key) not in self._deleting]
            if not keys:
                return keys
            for key in keys:
                place = (space, key)
                count = self._counts.get(place, 0)
                self._counts[place] = count + 1
                if count == 0:
                    self._changed.add(place)
                    self._since[place] = now
                elif self._since[place] != math.inf:
                    self._since[place] = now
        self._wake.set()
        return keys

    def hold(self, space, keys: list[bytes]) -> None:
        """Keeps the keys pinned until the table is closed."""
        with self._mutex:
            for key in keys:
                place = (space, key)
                self._counts[place] = self._counts.get(place, 0) + 1
                self._since[place] = math.inf
                self._kept.add(place)
                self._changed.add(place)
        self._wake.set()

    def unlock(self, space, keys: list[bytes]) -> list[bytes]:
        """One lock less; returns the keys that have none here."""
        without = []
        with self._mutex:
            for key in keys:
                place = (space, key)
                count = self._counts.get(place, 0)
                if count > 1:
                    self._counts[place] = count - 1
                elif count == 1:
                    del self._counts[place]
                    self._since.pop(place, None)
                    self._changed.add(place)
                else:
                    without.append(key)
        self._wake.set()
        return without

    def begin_delete(self, space, keys: list[bytes]) -> list[bytes]:
        """Of these keys, those that are not locked; they cannot be until `end_delete`."""
        with self._mutex:
            free = [key for key in keys if (space, key) not in self._counts]
            self._deleting.update((space, key) for key in free)
        return free

    def end_delete(self, space, keys: list[bytes]) -> None:
        with self._mutex:
            self._deleting.difference_update((space, key) for key in keys)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
        self._wake.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        period = self._seconds / 3
        renew_at = time.monotonic() + period
        while True:
            self._wake.wait(max(0.0, renew_at - time.monotonic()))
            self._wake.clear()  # before looking, so that no wake is lost
            if self._closed:
                return
            time.sleep(_GATHER_SECONDS)
            try:
                self._settle()
                if time.monotonic() >= renew_at:
                    self._renew()
            except Exception as error:  # the store may be closing; locks are advice to it
                self.failures += 1
                if not self._closed:
                    logger.warning("Hearth: pins could not be brought up to date: %s", error)
            if time.monotonic() >= renew_at:
                renew_at = time.monotonic() + period

    def _settle(self) -> None:
        with self._mutex:
            changed, self._changed = self._changed, set()
            wanted = {place for place in changed if place in self._counts}
        self._unpin((changed - wanted) & self._pinned)
        self._pin(wanted - self._pinned)

    def _renew(self) -> None:
        oldest = time.monotonic() - self._limit
        with self._mutex:
            late = [place for place, since in self._since.items() if since < oldest]
            for place in late:
                del self._counts[place]
                del self._since[place]
            wanted = set(self._counts)
        if late:
            self.forgotten += len(late)
        if late and not self._limit_is_normal:
            logger.warning(
                "Hearth: %d locks were held for over %g s and are let go", len(late), self._limit)
        self._unpin(self._pinned - wanted)
        self._pin(wanted)

    def _pin(self, places: set[tuple]) -> None:
        for space, keys in _by_space(places):
            for key, result in zip(keys, space.pin(keys, self._seconds)):
                if result.ok:
                    self._pinned.add((space, key))
                else:
                    self._pinned.discard((space, key))
                    self.unpinned += 1

    def _unpin(self, places: set[tuple]) -> None:
        for space, keys in _by_space(places):
            self._pinned.difference_update((space, key) for key in keys)
            space.unpin(keys)


def _by_space(places: set[tuple]):
    grouped: dict = {}
    for space, key in places:
        grouped.setdefault(space, []).append(key)
    return grouped.items()
