"""The store under an adapter: opened from its parameters, its namespaces, its regions.

A namespace is what one layout of one model's objects is kept in; it is opened when a key first
needs it. A catalogue, a namespace of its own, holds which ones there are, since a store is not
asked that otherwise; its entries stay pinned while the adapter lives, so that eviction passes them
over. An entry lost to damage costs listing and accounting of that layout until it stores again;
its blocks are found by whoever names the layout. One thread reads the catalogue and writes it, so
that no call of LMCache waits for that.
"""

import hashlib
import json
import logging
import queue
import threading

import hearth

from .keys import FORM, Family, Fields, SpaceName, space_fields
from .locks import LockTable
from .parameters import Parameters

logger = logging.getLogger(__name__)

# An engine has a handful of models; a name that changes with every request is a mistake.
SPACE_LIMIT = 2048


class BlockStore:
    """A store for LMCache's objects. Safe from any thread."""

    def __init__(self, parameters: Parameters, lock_limit: float | None = None):
        self.parameters = parameters
        try:
            self.store = hearth.open(
                parameters.path, capacity=parameters.capacity, **parameters.options)
        except hearth.LockedError as error:
            logger.error(
                "Hearth: %s is in use (%s); each adapter needs a directory of its own",
                parameters.path, error)
            raise
        try:
            self.locks = LockTable(
                parameters.lock_seconds, lock_limit or parameters.lock_limit_seconds,
                limit_is_normal=lock_limit is not None)
            self._catalogue = self.store.namespace(
                (("engine", "lmcache"), ("form", str(FORM)), ("role", "catalogue")))
        except BaseException:
            self.store.close()
            raise
        self._mutex = threading.Lock()
        self._spaces: dict[SpaceName, object] = {}
        self._names: dict[object, SpaceName] = {}
        self._families: dict[Family, tuple] = {}
        self._catalogued: set[SpaceName] = set()
        # Names to enter in the catalogue; None ends its thread.
        self._entering: queue.SimpleQueue[SpaceName | None] = queue.SimpleQueue()
        self._region = None
        self._base = 0
        self._end = 0
        self.region_reason = "LMCache gave no memory to register"
        # The index is complete, and the catalogue has been read.
        self.ready = threading.Event()
        self._cataloguer = threading.Thread(
            target=self._keep_catalogue, name="hearth-catalogue", daemon=True)
        self._cataloguer.start()

    # Memory

    def register(self, address: int, length: int) -> bool:
        """Registers LMCache's memory, so that the device reads and writes it without a copy."""
        try:
            self._region = self.store.register(address=address, length=length)
        except hearth.Error as error:
            self.region_reason = str(error)
            logger.warning(
                "Hearth: %d bytes of LMCache's memory are not registered, each transfer costs a "
                "little more: %s", length, error)
            return False
        self._base, self._end = address, address + length
        self.region_reason = ""
        return True

    @property
    def registered_bytes(self) -> int:
        return self._end - self._base

    def memory(self, address: int, length: int):
        """Memory as a buffer: a part of the registered region if it lies in it."""
        if self._base <= address and address + length <= self._end:
            return (self._region, address - self._base, length)
        return (address, length)

    # Namespaces

    def space(self, name: SpaceName):
        """The namespace of that name; opened, which waits a moment, when it is new."""
        found = self._spaces.get(name)
        return found if found is not None else self._open(name)

    def _open(self, name: SpaceName):
        with self._mutex:
            found = self._spaces.get(name)
            if found is None:
                if "\0" in name[0]:
                    raise ValueError("a model's name with a zero byte cannot be kept")
                if len(self._spaces) >= SPACE_LIMIT:
                    raise ValueError(
                        f"{SPACE_LIMIT} layouts of models are open in this store; one of "
                        f"{name[0]!r} is one too many")
                found = self.store.namespace(
                    self._fields(name), ttl_seconds=self.parameters.ttl_seconds)
                self._names[found] = name
                self._spaces[name] = found
                self._families[name[:2]] = (*self._families.get(name[:2], ()), found)
            return found

    def is_open(self, name: SpaceName) -> bool:
        return name in self._spaces

    def family(self, family: Family) -> tuple:
        """The namespaces of a model that are open, one a layout."""
        return self._families.get(family, ())

    def _fields(self, name: SpaceName) -> Fields:
        return space_fields(name, self.parameters.namespace)

    def spaces(self, model_name: str | None = None) -> list[tuple[SpaceName, object]]:
        """The namespaces that are open, in order of their names."""
        with self._mutex:
            return sorted(
                (item for item in self._spaces.items()
                 if model_name is None or item[0][0] == model_name), key=lambda item: item[0])

    # The catalogue

    def remember(self, space) -> None:
        """Has a namespace entered that something is stored in; does not wait."""
        name = self._names[space]
        if name not in self._catalogued:
            self._catalogued.add(name)
            self._entering.put(name)

    def _enter(self, name: SpaceName) -> None:
        entry = json.dumps(self._fields(name)).encode()
        key = hashlib.sha256(entry).digest()
        try:
            result, = self._catalogue.put([key], [entry])
            if result.ok:
                self.locks.hold(self._catalogue, [key])
                return
            reason = result.status
        except hearth.Error as error:
            reason = str(error)
        self._catalogued.discard(name)
        logger.warning("Hearth: model %r is not in the catalogue: %s", name[0], reason)

    def wait_recovered(self) -> None:
        """Waits until index and catalogue are there, for as long as is configured: until then a
        lookup can miss what is there. Blocks that have been found are served meanwhile."""
        if not self.ready.wait(self.parameters.recovery_seconds):
            logger.warning(
                "Hearth: the index is not complete after %g s; what it lacks is a miss for now",
                self.parameters.recovery_seconds)

    def _keep_catalogue(self) -> None:
        try:
            self.store.wait_recovered()
            self._read_catalogue()
        except (hearth.Error, ValueError) as error:
            if not self.store.closed:
                logger.warning("Hearth: the catalogue could not be read: %s", error)
        finally:
            self.ready.set()
        while (name := self._entering.get()) is not None:
            self._enter(name)

    def _read_catalogue(self) -> None:
        """Opens the namespaces of the catalogue that this configuration made."""
        for listed in self._catalogue.list():
            entry = self._catalogue.read(listed.key)
            try:
                fields = tuple((name, value) for name, value in json.loads(entry or b""))
                given = dict(fields)
                name = (given["model"], int(given["world_size"]), given["layout"])
            except (ValueError, KeyError, TypeError):
                continue
            if fields == self._fields(name):
                self._open(name)
                self._catalogued.add(name)
                self.locks.hold(self._catalogue, [listed.key])

    def close(self) -> None:
        self._entering.put(None)
        if self.ready.is_set():  # else it waits for the store, which closing ends
            self._cataloguer.join(timeout=30)
        self.locks.close()
        self.store.close()
        self._cataloguer.join(timeout=30)
