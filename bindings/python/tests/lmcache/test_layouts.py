"""Objects of one length and key that mean different numbers: another layout is a miss in lookup,
load and store alike, whatever a lookup is told, and its bytes are never handed out."""

import gc

import pytest
import torch
from lmcache.v1.distributed.api import MemoryLayoutDesc
from lmcache_support import make_key, payload, wait_for
from test_manager import folder, layout, manager, prefetch, write  # noqa: F401
from test_plugin import Listener

from hearth.lmcache import layouts

BLOCK = 64 << 10


def described(*parts):
    return MemoryLayoutDesc(
        shapes=[torch.Size(shape) for shape, _ in parts], dtypes=[dtype for _, dtype in parts])


BFLOAT16 = described(((2, 8, 16, 128), torch.bfloat16))
# Each has the length of BFLOAT16.
OTHERS = {
    "float16": described(((2, 8, 16, 128), torch.float16)),
    "int16": described(((2, 8, 16, 128), torch.int16)),
    "uint8": described(((2, 8, 16, 256), torch.uint8)),
    "heads first": described(((2, 16, 8, 128), torch.bfloat16)),
    "one dimension less": described(((16, 16, 128), torch.bfloat16)),
    "two parts": described(((2, 4, 16, 128), torch.bfloat16), ((2, 4, 16, 128), torch.bfloat16)),
    "parts of two types": described(
        ((2, 4, 16, 128), torch.bfloat16), ((2, 4, 16, 128), torch.float16)),
    "bytes": described(((BLOCK,), torch.uint8)),
}
PLACEHOLDER = MemoryLayoutDesc(shapes=[], dtypes=[])  # as `lmcache bench l2` passes it


@pytest.mark.parametrize("other", list(OTHERS))
@pytest.mark.parametrize("declared", [True, False])
def test_another_layout_is_a_miss_after_a_restart(machine, other, declared):
    changes = {"namespace": {"dtype": "auto"}} if declared else {}
    driver = machine.open(**changes)
    keys = [make_key(number) for number in range(4)]
    assert driver.store(keys, [BLOCK] * 4, layout=BFLOAT16).is_successful()
    driver.adapter.close()

    driver = machine.open(**changes)
    mine = OTHERS[other]
    assert driver.lookup(keys, {0: mine}) == [False] * 4
    objects = [machine.memory.cut(BLOCK, layout=mine) for _ in keys]
    task = driver.adapter.submit_load_task(keys, objects)
    loaded = driver._until(driver.adapter.get_load_event_fd(),
                           lambda: driver.adapter.query_load_result(task))
    assert loaded.popcount() == 0
    assert all(bytes(item.byte_array) == b"\xee" * BLOCK for item in objects), "bytes came"
    # A lookup that is told nothing may say that something is there: the load decides.
    for told in ({}, {0: PLACEHOLDER}, {1: mine}):
        driver.lookup(keys, told)
        assert driver.load(keys, [BLOCK] * 4, layout=mine) == [False] * 4
    driver.adapter.submit_unlock(keys * 3)
    assert driver.adapter.report_status()["locked_keys"] == 0

    # A store is not told that it is there; from then on each layout has its own.
    stored = driver.store(keys[:2], [BLOCK] * 2, revision=1, layout=mine)
    assert stored.is_successful() and stored.bytes_transferred() == 2 * BLOCK
    assert driver.lookup(keys, {0: mine}) == [True, True, False, False]
    assert driver.load(keys, [BLOCK] * 4, 1, layout=mine) == [True, True, False, False]
    assert driver.lookup(keys, {0: BFLOAT16}) == [True] * 4
    assert driver.load(keys, [BLOCK] * 4, layout=BFLOAT16) == [True] * 4


@pytest.mark.parametrize("told", [{}, {0: PLACEHOLDER}, {0: BFLOAT16}, {3: OTHERS["float16"]}])
def test_the_same_layout_is_found_whatever_the_lookup_is_told(machine, told):
    driver = machine.open()
    keys = [make_key(number) for number in range(4)]
    driver.store(keys, [BLOCK] * 4, layout=BFLOAT16)
    for _ in range(2):
        assert driver.lookup(keys, told) == [True] * 4
        assert driver.load(keys, [BLOCK] * 4, layout=BFLOAT16) == [True] * 4
        driver.adapter.submit_unlock(keys)
        assert driver.adapter.report_status()["locked_keys"] == 0
        driver.adapter.close()
        driver = machine.open()


def test_each_group_has_its_own_layout(machine):
    driver = machine.open()
    first = [make_key(number) for number in range(3)]
    second = [make_key(number, group=1) for number in range(3)]
    half = OTHERS["float16"]
    driver.store(first, [BLOCK] * 3, layout=BFLOAT16)
    driver.store(second, [BLOCK] * 3, layout=half)
    keys = [key for pair in zip(first, second) for key in pair]
    assert driver.lookup(keys, {0: BFLOAT16, 1: half}) == [True] * 6
    assert driver.lookup(keys, {0: half, 1: half}) == [False, True] * 3
    assert driver.lookup(keys, {0: half, 1: BFLOAT16}) == [False] * 6
    assert driver.lookup(keys, {1: BFLOAT16}) == [True, False] * 3
    # One task of objects of two layouts.
    objects = [machine.memory.cut(BLOCK, layout=(BFLOAT16, half)[key.object_group_id])
               for key in keys]
    task = driver.adapter.submit_load_task(keys, objects)
    loaded = driver._until(driver.adapter.get_load_event_fd(),
                           lambda: driver.adapter.query_load_result(task))
    assert loaded.popcount() == 6
    assert [bytes(item.byte_array) for item in objects] == [payload(key, BLOCK) for key in keys]


def test_usage_and_deletion_reach_every_layout(machine):
    driver = machine.open()
    listener = Listener()
    driver.adapter.register_listener(listener)
    half = OTHERS["float16"]
    keys = [make_key(number) for number in range(4)]
    driver.store(keys, [BLOCK] * 4, layout=BFLOAT16)
    driver.store(keys, [BLOCK] * 4, revision=1, layout=half)
    assert driver.adapter.get_usage().total_bytes_used == 8 * BLOCK
    # What is locked in one layout is kept in that one.
    assert driver.lookup(keys[:1], {0: half}) == [True]
    driver.adapter.delete(keys)
    assert driver.adapter.get_usage().total_bytes_used == BLOCK
    assert driver.lookup(keys, {0: BFLOAT16}) == [False] * 4
    assert driver.load(keys, [BLOCK] * 4, 1, layout=half) == [True, False, False, False]
    driver.adapter.submit_unlock(keys)
    driver.adapter.delete(keys)
    assert driver.adapter.get_usage().total_bytes_used == 0
    assert sorted(key.chunk_hash for key in listener.deleted) == sorted(
        key.chunk_hash for key in keys * 2)


def test_a_load_that_misses_forgets_no_other_layout(machine):
    driver = machine.open()
    keys = [make_key(number) for number in range(4)]
    driver.store(keys, [BLOCK] * 4, layout=BFLOAT16)
    assert driver.load(keys, [BLOCK] * 4, layout=OTHERS["float16"]) == [False] * 4
    assert driver.adapter.get_usage().total_bytes_used == 4 * BLOCK
    driver.adapter.close()
    driver = machine.open()
    wait_for(lambda: driver.adapter.report_status()["recovered"])
    assert driver.adapter.get_usage().total_bytes_used == 4 * BLOCK


def test_a_lost_catalogue_costs_no_block(machine):
    driver = machine.open()
    keys = [make_key(number) for number in range(4)]
    driver.store(keys, [BLOCK] * 4, layout=BFLOAT16)
    blocks = driver.adapter._blocks
    wait_for(lambda: list(blocks._catalogue.list()), what="the catalogue's entry")
    driver.adapter.close()
    driver = machine.open()
    catalogue = driver.adapter._blocks._catalogue
    names = [entry.key for entry in catalogue.list()]
    catalogue.unpin(names)
    assert all(result.status == "deleted" for result in catalogue.delete(names))
    driver.adapter.close()
    driver = machine.open()
    assert driver.adapter._blocks.spaces() == []
    assert driver.lookup(keys, {0: BFLOAT16}) == [True] * 4
    assert driver.load(keys, [BLOCK] * 4, layout=BFLOAT16) == [True] * 4


def test_the_native_type_is_told_by_the_configuration(machine):
    keys = [make_key(number) for number in range(4)]
    driver = machine.open("plugin", namespace={"dtype": "bfloat16"})
    driver.store(keys, [BLOCK] * 4, layout=BFLOAT16)
    driver.adapter.close()
    driver = machine.open("native_plugin", namespace={"dtype": "bfloat16"})
    assert driver.load(keys, [BLOCK] * 4, layout=BFLOAT16) == [False] * 4
    driver.store(keys, [BLOCK] * 4, revision=1, layout=BFLOAT16)
    driver.adapter.close()
    driver = machine.open("native_plugin", namespace={"dtype": "float16"})
    assert driver.lookup(keys, {0: OTHERS["float16"]}) == [False] * 4
    assert driver.load(keys, [BLOCK] * 4, layout=OTHERS["float16"]) == [False] * 4
    driver.adapter.close()
    driver = machine.open("native_plugin", namespace={"dtype": "bfloat16"})
    assert driver.load(keys, [BLOCK] * 4, 1, layout=BFLOAT16) == [True] * 4


def stored_and_emptied(storage, keys):
    write(storage, keys)
    adapter = storage.l2_adapters()[0][-1]
    wait_for(lambda: len(adapter.list_l2_keys().entries) == len(keys), what="the store")
    storage.clear(force=True)


def test_lmcache_restarted_with_another_type(folder):  # noqa: F811
    keys = [make_key(number) for number in range(8)]
    half = MemoryLayoutDesc(shapes=layout().shapes, dtypes=[torch.float16])
    storage = manager(folder, "plugin")
    try:
        stored_and_emptied(storage, keys)
    finally:
        storage.close()
        gc.collect()
    storage = manager(folder, "plugin")
    try:
        assert prefetch(storage, keys, half) == 0
        assert storage.l2_adapters()[0][-1].report_status()["lookup_hits"] == 0
        assert prefetch(storage, keys) == 8
    finally:
        storage.close()


@pytest.mark.parametrize("declared", [True, False])
def test_a_serde_hides_the_layout(folder, declared, caplog):  # noqa: F811
    """LMCache's own serde stores bytes under a lookup that names bfloat16: found only if the
    configuration tells the type, for nothing else would tell bfloat16 from float16."""
    serde = {"type": "fp8"}

    def opened(dtype):
        return manager(folder, "plugin", serde=serde,
                       **({"namespace": {"dtype": dtype}} if declared else {}))

    keys = [make_key(number) for number in range(8)]
    storage = opened("bfloat16")
    try:
        stored_and_emptied(storage, keys)
        assert prefetch(storage, keys, compare=False) == (8 if declared else 0)
    finally:
        storage.close()
        gc.collect()
    assert ("give adapter_params the engine's data type" in caplog.text) != declared
    storage = opened("float16")
    try:
        half = MemoryLayoutDesc(shapes=layout().shapes, dtypes=[torch.float16])
        assert prefetch(storage, keys, half, compare=False) == 0
    finally:
        storage.close()


def test_what_names_a_layout():
    told = [layouts.of_description(one) for one in (BFLOAT16, *OTHERS.values())]
    assert len(set(told)) == len(told)
    assert layouts.of_description(None) == layouts.of_description(PLACEHOLDER) == layouts.UNKNOWN
    assert layouts.of_description(described(((7,), torch.uint8))) == layouts.BYTES
    # As it comes from another process: lists of numbers.
    assert layouts.of_description(MemoryLayoutDesc([[2, 8, 16, 128]], [torch.bfloat16])) == told[0]
