"""HearthL2Adapter: LMCache's L2 adapter of type `plugin`.

LMCache's L1 memory is registered with the store, so objects go from it to the device and back
without a copy. Stores and loads are batches of a Hearth queue each; their event descriptors are
those queues' own. Lookups are answered from memory in the call itself. Nothing that LMCache's
controllers call waits for the device, but for the first use of a layout of a model, which opens
its namespace; `delete`, `list_l2_keys` and `close` wait.

An object is kept under its layout (layouts.py). A store and a load are told it with the objects, so
a load never brings bytes of another one. A lookup is told it by group; one that is not finds any,
and the load decides. Unlocking and deleting are not told it and reach every layout.

What fails is told per key: a load's bit is set only if the whole object came, checked and of the
layout and length asked for; a store's task fails if one of its keys did, and that key is not
visible.
"""

import logging
import os
import threading
import time

import hearth
from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.api import KeyEntry, KeyListPage, ObjectKey
from lmcache.v1.distributed.internal_api import L2StoreResult
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface
from lmcache.v1.memory_management import TensorMemoryObj

from . import layouts
from .blocks import BlockStore
from .keys import decode, encode, family
from .ledger import Known, Ledger
from .listing import Listings
from .parameters import Parameters
from .transfers import GET, PUT, Task, Transfers

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 1.0


class HearthL2Adapter(L2AdapterInterface):
    """An L2 adapter over a Hearth store. `params` are the `adapter_params` of the configuration
    (docs/lmcache.md); `l1_memory_desc` is LMCache's."""

    def __init__(self, params=None, l1_memory_desc=None):
        parameters = Parameters.from_dict({} if params is None else params)
        super().__init__(max_capacity_bytes=parameters.max_capacity)
        self._blocks = BlockStore(parameters)
        self._lookup_event = -1
        try:
            if l1_memory_desc is not None:
                # A lazy allocator has pinned only a part of its memory as yet.
                length = l1_memory_desc.stable_registration_size or l1_memory_desc.size
                self._blocks.register(l1_memory_desc.ptr, length)
            self._stores = Transfers(self._blocks.store, parameters.durability)
            self._loads = Transfers(self._blocks.store)
            self._lookup_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except BaseException:
            self._blocks.close()
            raise
        self._mutex = threading.Lock()
        self._next_task = 0
        self._closed = False
        self._warned_of_bytes = False
        self._lookups: dict[int, Bitmap] = {}
        self._loaded: dict[int, Bitmap] = {}
        self._ledger = Ledger()
        self._listings = Listings()
        self._counts = dict.fromkeys(
            ("stored", "already_there", "store_failures", "lookups", "lookup_hits", "loaded",
             "load_misses", "length_mismatches", "deleted", "delete_refused_locked"), 0)
        self._stop = threading.Event()
        self._filled = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="hearth-ledger", daemon=True)
        self._keeper.start()
        self._blocks.wait_recovered()

    # Descriptors

    def get_store_event_fd(self) -> int:
        return self._stores.descriptor

    def get_lookup_and_lock_event_fd(self) -> int:
        return self._lookup_event

    def get_load_event_fd(self) -> int:
        return self._loads.descriptor

    # Store

    def submit_store_task(self, keys, objects) -> int:
        task, parts = self._prepare(PUT, keys, objects)
        for space, *_ in parts:
            self._blocks.remember(space)
        self._stores.start(task, parts)
        return task.number

    def pop_completed_store_tasks(self) -> dict:
        return {task.number: self._store_ended(task) for task in self._stores.collect()}

    def _store_ended(self, task: Task) -> L2StoreResult:
        stored, failed, moved, new = [], [], 0, 0
        for index, result in enumerate(task.results):
            if task.succeeded(index):
                key = task.keys[index]
                stored.append((task.blocks[index], Known(key, task.sizes[index])))
                if result.status == "stored":
                    moved += task.sizes[index]
                    new += 1
            else:
                failed.append("not submitted" if result is None else result.status)
        if stored:
            self._told_stored(stored)
        self._counts["stored"] += new
        self._counts["already_there"] += len(stored) - new
        self._counts["store_failures"] += len(failed)
        if failed:
            logger.warning(
                "Hearth: %d of %d objects were not stored: %s", len(failed), len(task.keys),
                ", ".join(sorted(set(failed))))
        return L2StoreResult(not failed, moved)

    def _told_stored(self, entries) -> None:
        keys, added, former, sizes = self._ledger.add(entries)
        if former:
            self._notify_keys_deleted(former, sizes)
        self._notify_keys_stored(keys, added)

    # Lookup and lock

    def submit_lookup_and_lock_task(self, keys, group_layout_descs) -> int:
        number = self._number()
        told = {group: layouts.of_description(description)
                for group, description in (group_layout_descs or {}).items()}
        found = Bitmap(len(keys))
        hits = 0
        for name, encoded, places in self._grouped(
                keys, [told.get(key.object_group_id, layouts.UNKNOWN) for key in keys]):
            taken = self._lock_present(self._to_look_in(name), encoded, places)
            hits += len(taken)
            if len(taken) == len(keys):
                found.set_range(0, len(keys))
            else:
                found.batched_set(taken)
        with self._mutex:
            self._counts["lookups"] += len(keys)
            self._counts["lookup_hits"] += hits
            self._lookups[number] = found
        os.eventfd_write(self._lookup_event, 1)
        return number

    def _to_look_in(self, name) -> list:
        """The namespaces that can hold what a lookup asks for."""
        layout = name[2]
        if layout == layouts.UNKNOWN:
            self._space((*name[:2], layouts.BYTES))  # should the catalogue have lost it
            return list(self._blocks.family(name[:2]))
        wanted = [self._space(name)]
        if layout != layouts.BYTES:
            # What a serde stores are bare bytes: of this layout only if the configuration tells it.
            bare = (*name[:2], layouts.BYTES)
            if self._blocks.parameters.tells_dtype:
                wanted.append(self._space(bare))
            elif not self._warned_of_bytes and self._blocks.is_open(bare):
                self._warned_of_bytes = True
                logger.warning(
                    "Hearth: objects of model %r were stored as bare bytes, as by a serde, and are "
                    "not found: give adapter_params the engine's data type, such as "
                    '"namespace": {"dtype": "bfloat16"}', name[0])
        return [space for space in wanted if space is not None]

    def _lock_present(self, spaces, encoded, places) -> list[int]:
        """Locks each key in the first of the namespaces that has it; the places of those locked."""
        taken = []
        for space in spaces:
            if not encoded:
                break
            try:
                there = space.contains_many(encoded)
            except hearth.Error as error:
                logger.error("Hearth: a lookup of %d keys failed: %s", len(encoded), error)
                continue
            present = [key for key, is_there in zip(encoded, there) if is_there]
            locked = self._blocks.locks.lock(space, present)
            if len(locked) == len(present):
                taken += [place for place, is_there in zip(places, there) if is_there]
            else:
                held = set(locked)
                taken += [place for place, key in zip(places, encoded) if key in held]
            encoded, places = (
                [one for one, is_there in zip(rest, there) if not is_there]
                for rest in (encoded, places))
        return taken

    def query_lookup_and_lock_result(self, task_id: int):
        return self._lookups.pop(task_id, None)

    def submit_unlock(self, keys) -> None:
        if self._closed:
            return
        for name, encoded, _ in self._grouped(keys):
            for space in self._blocks.family(name[:2]):
                encoded = self._blocks.locks.unlock(space, encoded)
                if not encoded:
                    break

    # Load

    def submit_load_task(self, keys, objects) -> int:
        task, parts = self._prepare(GET, keys, objects)
        self._loads.start(task, parts)
        return task.number

    def query_load_result(self, task_id: int):
        found = self._loaded.pop(task_id, None)
        if found is not None:
            return found
        ended = self._loads.collect()
        for task in ended:
            self._loaded[task.number] = self._load_ended(task)
        found = self._loaded.pop(task_id, None)
        if len(ended) > (found is not None):
            # Others ended with it, and draining cleared the descriptor: whoever asked for them
            # must be woken again.
            self._loads.signal()
        return found

    def _load_ended(self, task: Task) -> Bitmap:
        loaded = Bitmap(len(task.keys))
        places, missed, mismatched = [], [], 0
        for index, result in enumerate(task.results):
            if task.succeeded(index):
                places.append(index)
            elif result is not None and result.status == "miss":
                missed.append(task.blocks[index])
            elif result is not None and result.status in ("hit", "invalid"):
                mismatched += 1
        if len(places) == len(task.keys):
            loaded.set_range(0, len(places))
            accessed = task.keys
        else:
            loaded.batched_set(places)
            accessed = [task.keys[place] for place in places]
        with self._mutex:
            self._counts["loaded"] += len(places)
            self._counts["load_misses"] += len(task.keys) - len(places)
            self._counts["length_mismatches"] += mismatched
        if accessed:
            self._notify_keys_accessed(accessed)
        if missed:
            self._gone(missed)
        return loaded

    # Delete, usage, listing

    def delete(self, keys) -> None:
        """Deletes what is not locked, of every layout; waits until the deletes are durable."""
        self._check_open()
        for name, encoded, _ in self._grouped(keys):
            for space in self._blocks.family(name[:2]):
                self._delete(space, encoded)

    def _delete(self, space, encoded) -> None:
        locks = self._blocks.locks
        chosen = locks.begin_delete(space, encoded)
        self._counts["delete_refused_locked"] += len(encoded) - len(chosen)
        if not chosen:
            return
        try:
            results = space.delete(chosen)
        finally:
            locks.end_delete(space, chosen)
        gone = [(space, key) for key, result in zip(chosen, results)
                if result.status in ("deleted", "not-found")]
        self._counts["deleted"] += sum(result.status == "deleted" for result in results)
        if len(gone) < len(chosen):
            logger.warning(
                "Hearth: %d of %d keys were not deleted", len(chosen) - len(gone), len(chosen))
        self._gone(gone)

    def _gone(self, blocks) -> None:
        """Tells of blocks that are in the store no more."""
        removed, sizes = self._ledger.remove(blocks)
        if removed:
            self._notify_keys_deleted(removed, sizes)

    def register_listener(self, listener) -> None:
        """A listener is told of what was stored before it came, in an earlier life, too."""
        super().register_listener(listener)
        keys, sizes = self._ledger.snapshot()
        if keys:
            listener.on_l2_keys_stored(keys, sizes)

    def list_l2_keys(self, model_name=None, page_size: int = 500, cursor=None):
        self._check_open()
        entries, token = self._listings.page(
            lambda: self._entries(model_name), page_size, cursor)
        return KeyListPage(entries=tuple(entries), next_page_token=token)

    def _entries(self, model_name):
        self._blocks.ready.wait()
        for (model, *_), space in self._blocks.spaces(model_name):
            for entry in space.list():
                try:
                    key = ObjectKey(*decode(entry.key, model))
                except ValueError:
                    continue
                yield KeyEntry(key=key.to_encoded_object_key(), size_bytes=entry.length)

    # Status, close

    def report_status(self) -> dict:
        blocks = self._blocks
        status = {
            "is_healthy": not self._closed and self._keeper.is_alive() and blocks.locks.alive,
            "type": "HearthL2Adapter",
            "path": blocks.parameters.path,
            "closed": self._closed,
            "recovered": self._filled.is_set(),
            "registered_bytes": blocks.registered_bytes,
            "unregistered_reason": blocks.region_reason,
            "known_keys": len(self._ledger),
            "stores_under_way": self._stores.under_way,
            "loads_under_way": self._loads.under_way,
            "puts_retried": self._stores.retried,
            "blocks_replaced": self._stores.replaced,
            "locked_keys": blocks.locks.held,
            "pinned_blocks": blocks.locks.pinned(),
            "pins_refused": blocks.locks.unpinned,
            "locks_forgotten": blocks.locks.forgotten,
            **self._counts,
        }
        if not self._closed:
            try:
                status["store"] = blocks.store.statistics()
            except hearth.Error as error:
                status["is_healthy"] = False
                status["store_error"] = str(error)
        return status

    def close(self) -> None:
        """Gives up what is under way, waits until LMCache's memory is free, and closes the store
        (which flushes it)."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        self._stores.close()
        self._loads.close()
        self._blocks.close()
        self._keeper.join(timeout=30)
        os.close(self._lookup_event)

    # Inside

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this HearthL2Adapter is closed")

    def _number(self) -> int:
        self._check_open()
        with self._mutex:
            self._next_task += 1
            return self._next_task

    def _prepare(self, kind, keys, objects):
        if len(keys) != len(objects):
            raise ValueError(f"{len(keys)} keys and {len(objects)} objects")
        number = self._number()
        sizes, buffers = [], []
        for item in objects:
            size, buffer = self._buffer(item)
            sizes.append(size)
            buffers.append(buffer)
        task = Task(number, kind, list(keys), sizes, objects)
        parts = []
        told = [layouts.of_object(item) for item in objects]
        for name, part, places in self._grouped(keys, told):
            space = self._space(name)
            if space is None:
                continue
            for place, key in zip(places, part):
                task.blocks[place] = (space, key)
            whole = len(places) == len(keys) and None not in buffers
            if whole:
                parts.append((space, part, buffers, None))
                continue
            usable = [i for i, place in enumerate(places) if buffers[place] is not None]
            if usable:
                parts.append((
                    space, [part[i] for i in usable], [buffers[places[i]] for i in usable],
                    [places[i] for i in usable]))
        return task, parts

    def _buffer(self, item):
        """An object's bytes: its length, and where they are (None if Hearth cannot reach them)."""
        size = item.get_size()
        if size <= 0:
            return size, None
        if not isinstance(item, TensorMemoryObj):
            try:
                return size, item.byte_array
            except (NotImplementedError, RuntimeError) as error:
                logger.error("Hearth: an object without host memory was passed over: %s", error)
                return size, None
        data = item.raw_data
        if data.device.type != "cpu":
            logger.error("Hearth: an object on %s was passed over; L2 takes L1's", data.device)
            return size, None
        return size, self._blocks.memory(data.data_ptr(), size)

    def _grouped(self, keys, told=None):
        """Keys by namespace: (its name, encoded keys, their places); `told` has a layout for each
        key. A key that is refused is in none of them: a miss, or a failed store."""
        groups: dict = {}
        refused: dict[str, int] = {}
        for place, key in enumerate(keys):
            name = (*family(key), layouts.UNKNOWN if told is None else told[place])
            try:
                encoded = encode(key)
            except ValueError as error:
                reason = f"model {name[0]!r}: {error}"
                refused[reason] = refused.get(reason, 0) + 1
                continue
            group = groups.get(name)
            if group is None:
                group = groups[name] = (name, [], [])
            group[1].append(encoded)
            group[2].append(place)
        for reason, count in refused.items():
            logger.error("Hearth: %d keys were refused: %s", count, reason)
        return list(groups.values())

    def _space(self, name):
        """The namespace of that name; None if it cannot be had."""
        try:
            return self._blocks.space(name)
        except (hearth.Error, ValueError) as error:
            logger.error("Hearth: keys of model %r were refused: %s", name[0], error)
            return None

    def _keep(self) -> None:
        """Fills the ledger from the store, then compares the two, a little at a time."""
        try:
            self._blocks.ready.wait()
            for (model, *_), space in self._blocks.spaces():
                found = []
                for entry in space.list():
                    if self._stop.is_set():
                        return
                    try:
                        key = ObjectKey(*decode(entry.key, model))
                    except ValueError:
                        continue
                    found.append(((space, entry.key), Known(key, entry.length)))
                    if len(found) == 1000:
                        self._told_stored(found)
                        found = []
                self._told_stored(found)
        except Exception as error:
            if not self._stop.is_set():
                logger.warning("Hearth: what was stored before could not be listed: %s", error)
        self._filled.set()
        while not self._stop.wait(_SWEEP_SECONDS):
            try:
                gone = self._ledger.sweep()
            except hearth.Error:
                time.sleep(_SWEEP_SECONDS)
                continue
            if gone:
                self._gone(gone)
