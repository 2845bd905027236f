"""What the tests share: L1 memory with real MemoryObjs, payloads that follow from the key, and
adapters made from their JSON by LMCache's own parser and factory.

The oracle of every test: what is loaded equals the payload derived from key and revision.
"""

import argparse
import ctypes
import hashlib
import json
import mmap
import select
import shutil
import time

import torch
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.internal_api import L1MemoryDesc
from lmcache.v1.distributed.l2_adapters import create_l2_adapter
from lmcache.v1.distributed.l2_adapters.config import parse_args_to_l2_adapters_config
from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj
from lmcache.v1.platform import consume_fd

SMALL = {"capacity": "640MiB", "max_block": "1MiB", "segment": "34MiB", "memory": "256MiB"}
PAGE = 4096
CLASSES = {"plugin": "HearthL2Adapter", "native_plugin": "HearthNativeClient"}


def make_key(number, model="org/model", rank=0x01000100, group=0, salt=""):
    digest = hashlib.sha256(f"chunk {number}".encode()).digest()
    return ObjectKey(digest, model, rank, group, salt)


def payload(key, length, revision=0):
    name = f"{key.model_name}/{key.kv_rank}/{key.object_group_id}/{key.cache_salt}/{revision}/"
    return hashlib.shake_128(name.encode() + key.chunk_hash).digest(length)


def adapter_json(kind, folder, serde=None, **changes):
    if kind == "native_plugin":
        changes.setdefault("namespace", {"dtype": "uint8"})
    return json.dumps({
        "type": kind, "module_path": "hearth.lmcache", "class_name": CLASSES[kind],
        "adapter_params": {"path": str(folder), **SMALL, **changes},
        **({"serde": serde} if serde else {})})


def create(text, memory=None):
    """An adapter as `lmcache server --l2-adapter TEXT` makes it."""
    parsed = parse_args_to_l2_adapters_config(argparse.Namespace(l2_adapter=[text]))
    return create_l2_adapter(parsed.adapters[0], l1_memory_desc=memory)


def wait_for(condition, seconds=20, what="a condition"):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)


class Memory:
    """L1: anonymous memory, of which objects are cut at any address."""

    def __init__(self, length=64 << 20):
        self.map = mmap.mmap(-1, length)
        self.tensor = torch.frombuffer(self.map, dtype=torch.uint8)
        self.length = length
        self.next = 0

    def description(self):
        return L1MemoryDesc(ptr=self.tensor.data_ptr(), size=self.length, align_bytes=PAGE)

    def cut(self, length, fill=None, shift=0, layout=None):
        """An object of so many bytes; `shift` puts it off a page boundary. Without a layout (a
        MemoryLayoutDesc) it is a row of bytes."""
        start = (self.next + PAGE - 1) // PAGE * PAGE + shift
        if start + length > self.length:
            start = shift
        self.next = start + length
        part = self.tensor[start:start + length]
        return wrap(part, fill, layout)


def wrap(tensor, fill=None, layout=None):
    if fill is None:
        tensor.fill_(0xEE)
    else:
        ctypes.memmove(tensor.data_ptr(), fill, len(fill))
    shapes = dtypes = None
    shape, dtype = tensor.shape, torch.uint8
    if layout is not None:
        shapes, dtypes = layout.shapes, layout.dtypes
        shape, dtype = shapes[0], dtypes[0]
    return TensorMemoryObj(
        tensor, MemoryObjMetadata(
            shape=shape, dtype=dtype, address=0, phy_size=tensor.numel(),
            fmt=MemoryFormat.KV_2LTD, ref_count=1, shapes=shapes, dtypes=dtypes), None)


class Driver:
    """One adapter, called as LMCache's controllers call it: submit, wait on the descriptor, ask."""

    def __init__(self, adapter, memory):
        self.adapter = adapter
        self.memory = memory

    @staticmethod
    def _until(descriptor, ask, seconds=30):
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        end = time.monotonic() + seconds
        while True:
            assert poller.poll(max(0, end - time.monotonic()) * 1000), "no event came"
            consume_fd(descriptor)
            answer = ask()
            if answer is not None:
                return answer

    def store(self, keys, lengths, revision=0, shift=0, layout=None):
        objects = [self.memory.cut(length, payload(key, length, revision), shift, layout)
                   for key, length in zip(keys, lengths)]
        return self.store_objects(keys, objects)

    def store_objects(self, keys, objects):
        task = self.adapter.submit_store_task(keys, objects)
        return self._until(
            self.adapter.get_store_event_fd(),
            lambda: self.adapter.pop_completed_store_tasks().get(task))

    def lookup(self, keys, told=None):
        """`told` are the layouts by object group."""
        task = self.adapter.submit_lookup_and_lock_task(keys, told or {})
        found = self._until(
            self.adapter.get_lookup_and_lock_event_fd(),
            lambda: self.adapter.query_lookup_and_lock_result(task))
        assert self.adapter.query_lookup_and_lock_result(task) is None
        return [found.test(place) for place in range(len(keys))]

    def load(self, keys, lengths, revision=0, shift=0, layout=None):
        """Which keys came; each that came is compared with its payload."""
        objects = [self.memory.cut(length, shift=shift, layout=layout) for length in lengths]
        task = self.adapter.submit_load_task(keys, objects)
        loaded = self._until(
            self.adapter.get_load_event_fd(), lambda: self.adapter.query_load_result(task))
        assert self.adapter.query_load_result(task) is None
        came = [loaded.test(place) for place in range(len(keys))]
        for key, item, there in zip(keys, objects, came):
            if there:
                expected = payload(key, item.get_size(), revision)
                assert bytes(item.byte_array) == expected, f"wrong bytes under {key}"
        return came

    def fill(self, count, length=64 << 10, first=0, **how):
        keys = [make_key(number, **how) for number in range(first, first + count)]
        for start in range(0, count, 128):
            part = keys[start:start + 128]
            assert self.store(part, [length] * len(part)).is_successful()
        return keys


class Machine:
    """The adapters of one test."""

    def __init__(self, folder):
        self.folder = folder
        self.memory = Memory()
        self.drivers = []

    def open(self, kind="plugin", name="store", registered=True, **changes):
        adapter = create(
            adapter_json(kind, self.folder / name, **changes),
            self.memory.description() if registered else None)
        driver = Driver(adapter, self.memory)
        self.drivers.append(driver)
        return driver

    def close(self):
        for driver in self.drivers:
            driver.adapter.close()
        # pytest keeps the folders of three runs; stores are preallocated.
        shutil.rmtree(self.folder, ignore_errors=True)
