"""LMCache's own StorageManager over the adapter: writes go down by its store controller, L1 is
emptied, and its prefetch controller brings them back."""

import argparse
import ctypes
import gc
import shutil

import pytest
import torch
from lmcache.v1.distributed.api import (
    GroupedObjectKeys,
    MemoryLayoutDesc,
    PrefetchTaskSpec,
)
from lmcache.v1.distributed.config import (
    EvictionConfig,
    L1ManagerConfig,
    L1MemoryManagerConfig,
    StorageManagerConfig,
)
from lmcache.v1.distributed.l2_adapters.config import parse_args_to_l2_adapters_config
from lmcache.v1.distributed.storage_manager import StorageManager
from lmcache_support import adapter_json, make_key, payload, wait_for

SHAPE = (2, 4, 64, 128)
LENGTH = 2 * 4 * 64 * 128 * 2


def manager(path, kind, **changes):
    adapters = parse_args_to_l2_adapters_config(
        argparse.Namespace(l2_adapter=[adapter_json(kind, path, **changes)]))
    return StorageManager(StorageManagerConfig(
        l1_manager_config=L1ManagerConfig(
            memory_config=L1MemoryManagerConfig(64 << 20, use_lazy=False, shm_name="")),
        eviction_config=EvictionConfig("LRU"), l2_adapter_config=adapters))


def layout():
    return MemoryLayoutDesc(shapes=[torch.Size(SHAPE)], dtypes=[torch.bfloat16])


def write(storage, keys):
    reserved = storage.reserve_write(keys, layout())
    assert set(reserved) == set(keys)
    for key, item in reserved.items():
        data = payload(key, LENGTH)
        assert item.get_size() == LENGTH
        ctypes.memmove(item.data_ptr, data, LENGTH)
    storage.finish_write(keys)


def prefetch(storage, keys, described=None, compare=True):
    """How many came, from the front; each is compared with what was written."""
    row = GroupedObjectKeys(keys, 0, described or layout(), -1)
    handle = storage.submit_prefetch_task(PrefetchTaskSpec([row]))
    assert storage.wait_prefetch_status(handle, 30)
    count = storage.query_prefetch_status(handle).hit_cells[0].popcount()
    if count:
        with storage.read_prefetched_results(keys[:count]) as items:
            assert items is not None
            for key, item in zip(keys, items):
                assert not compare or bytes(item.byte_array) == payload(key, LENGTH)
        storage.finish_read_prefetched(keys[:count])
    return count


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "store"
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("kind", ["plugin", "native_plugin"])
def test_down_and_up_again_and_after_a_restart(folder, kind):
    keys = [make_key(number) for number in range(64)]
    storage = manager(folder, kind)
    try:
        (_, adapter), = storage.l2_adapters() and [pair[-2:] for pair in storage.l2_adapters()]
        write(storage, keys)
        wait_for(lambda: adapter.get_usage().total_bytes_used == 64 * LENGTH, what="the store")
        wait_for(lambda: storage.report_status()["is_healthy"], what="health")
        storage.clear(force=True)
        assert prefetch(storage, keys) == 64
        assert prefetch(storage, [make_key(1000)]) == 0
        if kind == "plugin":
            status = adapter.report_status()
            assert status["registered_bytes"] == 64 << 20
            wait_for(lambda: adapter.report_status()["locked_keys"] == 0, what="unlocks")
    finally:
        storage.close()
        gc.collect()
    storage = manager(folder, kind)
    try:
        assert prefetch(storage, keys) == 64
    finally:
        storage.close()


def test_another_model_gets_nothing(folder):
    storage = manager(folder, "plugin")
    keys = [make_key(number) for number in range(8)]
    try:
        write(storage, keys)
        adapter = storage.l2_adapters()[0][-1]
        wait_for(lambda: adapter.get_usage().total_bytes_used == 8 * LENGTH, what="the store")
        assert prefetch(storage, [make_key(n, model="org/model-v2") for n in range(8)]) == 0
    finally:
        storage.close()
