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
import threading
import time

logger = logging.getLogger(__name__)

# Lookups come in bursts: the pins of one go in one batch, when it is over or has lasted for long,
# and do not contend with the lookups.
_GATHER_SECONDS = 0.01
_LONGEST_GATHER_SECONDS = 0.05


class _Locks:
    """The locks on the keys of one namespace."""

    __slots__ = ("space", "counts", "since", "changed", "kept", "deleting", "pinned")

    def __init__(self, space):
        self.space = space
        self.counts: dict[bytes, int] = {}
        self.since: dict[bytes, float] = {}  # when each was last locked; not what is kept
        self.changed: set[bytes] = set()     # gained its first lock or lost its last
        self.kept: set[bytes] = set()
        self.deleting: set[bytes] = set()
        self.pinned: set[bytes] = set()      # changed by the thread alone

    def add(self, keys: list[bytes], when: float) -> None:
        counts = self.counts
        fresh = dict.fromkeys(keys, 1)
        if len(fresh) == len(keys) and counts.keys().isdisjoint(fresh):
            counts.update(fresh)
            self.changed.update(fresh)
        else:
            for key in keys:
                count = counts.get(key, 0)
                counts[key] = count + 1
                if count == 0:
                    self.changed.add(key)
        self.since.update(dict.fromkeys(keys, when))

    def remove(self, keys: list[bytes]) -> list[bytes]:
        """Returns the keys that have none."""
        counts, without = self.counts, []
        for key in keys:
            count = counts.get(key, 0)
            if count > 1:
                counts[key] = count - 1
            elif count == 1:
                self.forget(key)
                self.changed.add(key)
            else:
                without.append(key)
        return without

    def forget(self, key: bytes) -> None:
        del self.counts[key]
        self.since.pop(key, None)


class LockTable:
    """Locks by namespace and key; safe from any thread."""

    def __init__(self, seconds: float, limit: float, limit_is_normal: bool = False):
        self._seconds = seconds
        self._limit = limit
        self._limit_is_normal = limit_is_normal
        self._mutex = threading.Lock()
        # Locks and unlocks not counted yet, in order: the locks, keys, when (None: an unlock).
        self._noted: list[tuple] = []
        self._locks: dict[object, _Locks] = {}
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
            return sum(len(one.counts) - len(one.kept) for one in self._locks.values())

    def pinned(self) -> int:
        """Blocks pinned in the store now."""
        with self._mutex:
            return sum(len(one.pinned) for one in self._locks.values())

    def lock(self, space, keys: list[bytes]) -> list[bytes]:
        """One more lock on each of the keys; returns those that it took: not what is being
        deleted. Keeps the list."""
        with self._mutex:
            one = self._of(space)
            if one.deleting:
                keys = [key for key in keys if key not in one.deleting]
            if not keys:
                return keys
            self._noted.append((one, keys, time.monotonic()))
        self._stir()
        return keys

    def hold(self, space, keys: list[bytes]) -> None:
        """Keeps the keys pinned until the table is closed."""
        with self._mutex:
            self._count()
            one = self._of(space)
            one.add(keys, 0.0)
            one.kept.update(keys)
        self._stir()

    def release(self, space, keys: list[bytes]) -> None:
        """One lock less on each of the keys that has one. Keeps the list."""
        with self._mutex:
            self._noted.append((self._of(space), keys, None))
        self._stir()

    def unlock(self, space, keys: list[bytes]) -> list[bytes]:
        """One lock less; returns the keys that have none here."""
        with self._mutex:
            self._count()
            without = self._of(space).remove(keys)
        self._stir()
        return without

    def begin_delete(self, space, keys: list[bytes]) -> list[bytes]:
        """Of these keys, those that are not locked; they cannot be until `end_delete`."""
        with self._mutex:
            self._count()
            one = self._of(space)
            free = [key for key in keys if key not in one.counts]
            one.deleting.update(free)
        return free

    def end_delete(self, space, keys: list[bytes]) -> None:
        with self._mutex:
            self._of(space).deleting.difference_update(keys)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
        self._wake.set()
        self._thread.join(timeout=30)

    # The mutex is held

    def _of(self, space) -> _Locks:
        one = self._locks.get(space)
        if one is None:
            one = self._locks[space] = _Locks(space)
        return one

    def _count(self) -> None:
        noted, self._noted = self._noted, []
        for one, keys, when in noted:
            if when is None:
                one.remove(keys)
            else:
                one.add(keys, when)

    # It is not

    def _stir(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

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
        work = []
        with self._mutex:
            self._count()
            for one in self._locks.values():
                if one.changed:
                    changed, one.changed = one.changed, set()
                    wanted = {key for key in changed if key in one.counts}
                    work.append((one, (changed - wanted) & one.pinned, wanted - one.pinned))
        for one, free, wanted in work:
            self._unpin(one, free)
            self._pin(one, wanted)

    def _renew(self) -> None:
        oldest = time.monotonic() - self._limit
        work, late = [], 0
        with self._mutex:
            self._count()
            for one in self._locks.values():
                old = [key for key, since in one.since.items()
                       if since < oldest and key not in one.kept]
                for key in old:
                    one.forget(key)
                late += len(old)
                wanted = set(one.counts)
                work.append((one, one.pinned - wanted, wanted))
        self.forgotten += late
        if late and not self._limit_is_normal:
            logger.warning(
                "Hearth: %d locks were held for over %g s and are let go", late, self._limit)
        for one, free, wanted in work:
            self._unpin(one, free)
            self._pin(one, wanted)

    def _pin(self, one: _Locks, wanted: set[bytes]) -> None:
        if not wanted:
            return
        keys = list(wanted)
        results = one.space.pin(keys, self._seconds)
        refused = [key for key, result in zip(keys, results) if not result.ok]
        self.unpinned += len(refused)
        with self._mutex:
            one.pinned.update(keys)
            one.pinned.difference_update(refused)

    def _unpin(self, one: _Locks, free: set[bytes]) -> None:
        if not free:
            return
        with self._mutex:
            one.pinned -= free
        one.space.unpin(list(free))
