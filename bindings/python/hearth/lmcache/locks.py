"""LMCache's locks on blocks: a count for each key, and a pin in Hearth while it is above zero.

A lookup is answered from memory and may not wait: a lock is only noted there, and counted when
somebody needs the counts. The pins follow from a thread of this table, many in one batch, some
milliseconds after a burst. Until then an eviction can take the block; the load then misses, which
LMCache is told for that key. A lock that has gone by then never costs a pin. Pins have a time limit
in the store, so that a dead process holds nothing, and are renewed while the lock is held. A lock
that is held for longer than `limit` seconds has been forgotten by its holder: its pin is let go and
counted; `hold` is for what is never let go. Where pins would hold more than the store grants (a
quarter of its capacity) a block stays unpinned, and that is counted, too.

One thread pins and unpins, so what Hearth has always becomes what the counts say.
"""

import logging
import math
import threading
import time

logger = logging.getLogger(__name__)

# Lookups come in bursts: the pins of one go in one batch, when it is over or has lasted for long, and
# do not contend with the lookups.
_GATHER_SECONDS = 0.01
_LONGEST_GATHER_SECONDS = 0.05


class LockTable:
    """Counts by (namespace, key); safe from any thread."""

    def __init__(self, seconds: float, limit: float, limit_is_normal: bool = False):
        self._seconds = seconds
        self._limit = limit
        self._limit_is_normal = limit_is_normal
        self._mutex = threading.Lock()
        # Locks and unlocks not counted yet, in order: (1 or -1, namespace, keys, when).
        self._noted: list[tuple] = []
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
        with self._mutex:
            self._count()
            return len(self._counts) - len(self._kept)

    def pinned(self) -> int:
        """Blocks pinned in the store now."""
        return len(self._pinned)

    def lock(self, space, keys: list[bytes]) -> list[bytes]:
        """One more lock on each of the keys; returns those that it took: not what is being
        deleted. Keeps the list."""
        with self._mutex:
            if self._deleting:
                keys = [key for key in keys if (space, key) not in self._deleting]
            if not keys:
                return keys
            self._noted.append((1, space, keys, time.monotonic()))
        self._stir()
        return keys

    def release(self, space, keys: list[bytes]) -> None:
        """One lock less on each of the keys that has one. Keeps the list."""
        with self._mutex:
            self._noted.append((-1, space, keys, 0.0))
        self._stir()

    def _stir(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    def _count(self) -> list[bytes]:
        """Counts what was noted, the mutex held. Returns the keys of the last that had no lock."""
        noted, self._noted = self._noted, []
        counts, since = self._counts, self._since
        without: list[bytes] = []
        for change, space, keys, when in noted:
            without = []
            for key in keys:
                place = (space, key)
                count = counts.get(place, 0)
                if change > 0:
                    counts[place] = count + 1
                    if count == 0:
                        self._changed.add(place)
                        since[place] = when
                    elif since[place] != math.inf:
                        since[place] = when
                elif count > 1:
                    counts[place] = count - 1
                elif count == 1:
                    del counts[place]
                    since.pop(place, None)
                    self._changed.add(place)
                else:
                    without.append(key)
        return without

    def hold(self, space, keys: list[bytes]) -> None:
        """Keeps the keys pinned until the table is closed."""
        with self._mutex:
            self._count()
            for key in keys:
                place = (space, key)
                self._counts[place] = self._counts.get(place, 0) + 1
                self._since[place] = math.inf
                self._kept.add(place)
                self._changed.add(place)
        self._wake.set()

    def unlock(self, space, keys: list[bytes]) -> list[bytes]:
        """One lock less; returns the keys that have none here."""
        with self._mutex:
            self._noted.append((-1, space, keys, 0.0))
            without = self._count()
        self._stir()
        return without

    def begin_delete(self, space, keys: list[bytes]) -> list[bytes]:
        """Of these keys, those that are not locked; they cannot be until `end_delete`."""
        with self._mutex:
            self._count()
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
            if self._closed:
                return
            self._gather()
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

    def _gather(self) -> None:
        """Waits for the end of a burst. The wake is cleared before looking, so none is lost."""
        latest = time.monotonic() + _LONGEST_GATHER_SECONDS
        while True:
            self._wake.clear()
            time.sleep(_GATHER_SECONDS)
            if self._closed or not self._wake.is_set() or time.monotonic() >= latest:
                return

    def _settle(self) -> None:
        with self._mutex:
            self._count()
            changed, self._changed = self._changed, set()
            wanted = {place for place in changed if place in self._counts}
        self._unpin((changed - wanted) & self._pinned)
        self._pin(wanted - self._pinned)

    def _renew(self) -> None:
        oldest = time.monotonic() - self._limit
        with self._mutex:
            self._count()
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
