"""HearthL2Adapter against LMCache's interface: made by its factory, called as controllers do."""

import inspect
import threading

import pytest
import torch
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.distributed.internal_api import L2AdapterListener
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface
from lmcache_support import PAGE, make_key, payload, wait_for, wrap

BLOCK = 64 << 10


class Listener(L2AdapterListener):
    def __init__(self):
        self.stored, self.accessed, self.deleted = {}, [], []

    def on_l2_keys_stored(self, keys, sizes):
        self.stored.update(zip(keys, sizes))

    def on_l2_keys_accessed(self, keys):
        self.accessed += keys

    def on_l2_keys_deleted(self, keys):
        self.deleted += keys


def test_every_method_of_the_interface_is_there(machine):
    adapter = machine.open().adapter
    assert isinstance(adapter, L2AdapterInterface)
    own = {"delete", "list_l2_keys", "report_status", "register_listener", "close"}
    for name, method in inspect.getmembers(L2AdapterInterface, inspect.isfunction):
        if getattr(method, "__isabstractmethod__", False) or name in own:
            mine = getattr(type(adapter), name)
            assert mine is not method, name
            assert list(inspect.signature(mine).parameters) == list(
                inspect.signature(method).parameters), name


def test_three_distinct_descriptors(machine):
    one, two = machine.open(name="one").adapter, machine.open(name="two").adapter
    descriptors = [f() for adapter in (one, two) for f in (
        adapter.get_store_event_fd, adapter.get_lookup_and_lock_event_fd,
        adapter.get_load_event_fd)]
    assert len(set(descriptors)) == 6


@pytest.mark.parametrize("registered", [True, False])
def test_store_lookup_load_unlock(machine, registered):
    driver = machine.open(registered=registered)
    keys = [make_key(number) for number in range(40)]
    sizes = [BLOCK] * 20 + [BLOCK + PAGE * number for number in range(20)]
    result = driver.store(keys[:30], sizes[:30])
    assert result.is_successful() and result.bytes_transferred() == sum(sizes[:30])
    assert driver.lookup(keys) == [True] * 30 + [False] * 10
    assert driver.load(keys, sizes) == [True] * 30 + [False] * 10
    status = driver.adapter.report_status()
    assert status["is_healthy"] and status["locked_keys"] == 30
    assert (status["registered_bytes"] > 0) == registered
    driver.adapter.submit_unlock(keys)
    assert driver.adapter.report_status()["locked_keys"] == 0


def test_storing_again_moves_nothing(machine):
    driver = machine.open()
    keys = driver.fill(4)
    again = driver.store(keys, [BLOCK] * 4)
    assert again.is_successful() and again.bytes_transferred() == 0
    assert driver.adapter.get_usage().total_bytes_used == 4 * BLOCK


def test_many_tasks_at_once_come_out_each_once(machine):
    driver = machine.open()
    adapter, memory = driver.adapter, driver.memory
    keys = [[make_key(100 * task + number) for number in range(4)] for task in range(64)]
    tasks = {}
    for part in keys:
        objects = [memory.cut(BLOCK, payload(key, BLOCK)) for key in part]
        tasks[adapter.submit_store_task(part, objects)] = part
    ended = {}
    while len(ended) < 64:
        ended.update(driver._until(
            adapter.get_store_event_fd(), lambda: adapter.pop_completed_store_tasks() or None))
    assert set(ended) == set(tasks) and all(r.is_successful() for r in ended.values())

    loads = {}
    for part in keys:
        objects = [memory.cut(BLOCK) for _ in part]
        loads[adapter.submit_load_task(part, objects)] = (part, objects)
    # As a controller does that was woken for one task and asks for all: what it was not yet told of
    # must wake it again.
    waiting = set(loads)

    def ask():
        for task in list(waiting):
            if (loaded := adapter.query_load_result(task)) is not None:
                waiting.discard(task)
                part, objects = loads[task]
                assert loaded.popcount() == len(part)
                for key, item in zip(part, objects):
                    assert bytes(item.byte_array) == payload(key, BLOCK)
        return None if waiting else True

    driver._until(adapter.get_load_event_fd(), ask)


def test_listeners_and_usage_by_salt(machine):
    driver = machine.open()
    listener = Listener()
    driver.adapter.register_listener(listener)
    keys = [make_key(number, salt=salt) for number in range(3) for salt in ("", "alice", "bob")]
    driver.store(keys, [BLOCK] * 9)
    usage = driver.adapter.get_usage()
    assert usage.total_bytes_used == 9 * BLOCK
    assert dict(usage.bytes_by_cache_salt) == dict.fromkeys(("", "alice", "bob"), 3 * BLOCK)
    assert usage.total_capacity_bytes == 640 << 20 and driver.adapter.supports_global_eviction
    assert listener.stored == dict.fromkeys(keys, BLOCK)
    driver.load(keys[:4], [BLOCK] * 4)
    assert listener.accessed == keys[:4]
    driver.adapter.delete([key for key in keys if key.cache_salt == "bob"])
    assert dict(driver.adapter.get_usage().bytes_by_cache_salt) == dict.fromkeys(
        ("", "alice"), 3 * BLOCK)
    assert set(listener.deleted) == {key for key in keys if key.cache_salt == "bob"}
    assert driver.lookup(keys) == [key.cache_salt != "bob" for key in keys]


def test_every_part_of_a_key_counts(machine):
    """Model, rank, topology, group and salt: another one is a miss, never another's bytes."""
    driver = machine.open()
    key = make_key(1)
    others = [
        make_key(1, model="org/model2"), make_key(1, rank=0x01000101), make_key(1, rank=0x02000100),
        make_key(1, group=1), make_key(1, salt="tenant"), make_key(2),
        ObjectKey(key.chunk_hash[:-1], key.model_name, key.kv_rank),
        ObjectKey(key.chunk_hash + b"\0", key.model_name, key.kv_rank)]
    driver.store([key], [BLOCK])
    assert driver.lookup([key, *others]) == [True] + [False] * len(others)
    assert driver.load(others, [BLOCK] * len(others)) == [False] * len(others)
    # And all of them side by side, each with its own bytes.
    driver.store(others, [BLOCK] * len(others))
    assert all(driver.load([key, *others], [BLOCK] * (len(others) + 1)))


def test_namespace_of_the_configuration_separates(machine):
    first = machine.open(namespace={"dtype": "bfloat16"})
    keys = first.fill(4)
    first.adapter.close()
    other = machine.open(namespace={"dtype": "float8"})
    assert other.lookup(keys) == [False] * 4
    assert other.load(keys, [BLOCK] * 4) == [False] * 4
    wait_for(lambda: other.adapter.report_status()["recovered"])
    assert other.adapter.get_usage().total_bytes_used == 0
    other.adapter.close()
    same = machine.open(namespace={"dtype": "bfloat16"})
    assert same.load(keys, [BLOCK] * 4) == [True] * 4


@pytest.mark.parametrize("length", [1, 100, 4095, 4097, 65_535, 100_001, 1 << 20])
@pytest.mark.parametrize("shift", [0, 1, 512, 4095])
def test_odd_sizes_and_unaligned_memory(machine, length, shift):
    driver = machine.open()
    keys = [make_key(number) for number in range(3)]
    assert driver.store(keys, [length] * 3, shift=shift).is_successful()
    assert driver.load(keys, [length] * 3, shift=(shift * 7 + 3) % PAGE) == [True] * 3


def test_nothing_is_written_beyond_an_object(machine):
    driver = machine.open()
    key, length = make_key(1), 70_001
    driver.store([key], [length])
    around = machine.memory.tensor[8 << 20:(8 << 20) + 3 * PAGE + length]
    around.fill_(0x5A)
    item = wrap(around[PAGE + 5:PAGE + 5 + length])
    task = driver.adapter.submit_load_task([key], [item])
    driver._until(driver.adapter.get_load_event_fd(),
                  lambda: driver.adapter.query_load_result(task))
    assert bytes(item.byte_array) == payload(key, length)
    assert bool((around[:PAGE + 5] == 0x5A).all())
    assert bool((around[PAGE + 5 + length:] == 0x5A).all())


def test_another_length_is_a_miss_and_a_store_replaces_it(machine):
    driver = machine.open()
    key = make_key(1)
    driver.store([key], [BLOCK])
    for length in (BLOCK - 1, BLOCK + 1, PAGE, 4 * BLOCK):
        assert driver.load([key], [length]) == [False]
    assert driver.adapter.report_status()["length_mismatches"] == 4
    # The layout changed: what is stored now counts.
    assert driver.store([key], [2 * BLOCK], revision=1).is_successful()
    assert driver.load([key], [2 * BLOCK], revision=1) == [True]
    assert driver.adapter.get_usage().total_bytes_used == 2 * BLOCK


def test_memory_outside_of_l1(machine):
    driver = machine.open()
    keys = [make_key(number) for number in range(2)]
    objects = [wrap(torch.empty(BLOCK, dtype=torch.uint8), payload(key, BLOCK)) for key in keys]
    assert driver.store_objects(keys, objects).is_successful()
    assert driver.load(keys, [BLOCK] * 2) == [True, True]


def test_a_failed_store_is_told_and_never_visible(machine):
    driver = machine.open()
    good, large, empty = make_key(1), make_key(2), make_key(3)
    objects = [machine.memory.cut(BLOCK, payload(good, BLOCK)),
               machine.memory.cut((1 << 20) + 1),  # beyond max_block
               machine.memory.cut(0)]
    result = driver.store_objects([good, large, empty], objects)
    assert not result.is_successful() and result.bytes_transferred() == 0
    assert driver.lookup([good, large, empty]) == [True, False, False]
    assert driver.load([good, large], [BLOCK, (1 << 20) + 1]) == [True, False]
    assert driver.adapter.get_usage().total_bytes_used == BLOCK
    assert driver.adapter.report_status()["store_failures"] == 2


def test_keys_with_any_byte_and_refused_keys(machine):
    driver = machine.open()
    keys = [ObjectKey(bytes([value]) * 32, "m/\n\u2028é", 0, 0, "sält \n\u3000")
            for value in range(256)]
    assert driver.store(keys, [PAGE] * 256).is_successful()
    assert all(driver.load(keys, [PAGE] * 256))
    refused = [ObjectKey(b"", "m", 0), ObjectKey(b"x" * 600, "m", 0), ObjectKey(b"x", "m", -1),
               ObjectKey(b"x", "m", 1 << 70), ObjectKey(b"x" * 32, "m", 0, 0, "\U0001F600" * 128),
               ObjectKey(b"x" * 32, "m\0", 0)]
    for key in refused:
        assert not driver.store([key], [PAGE]).is_successful()
    assert driver.lookup([*refused, keys[0]]) == [False] * 6 + [True]
    assert driver.load([*refused, keys[0]], [PAGE] * 7) == [False] * 6 + [True]
    driver.adapter.submit_unlock(refused)
    driver.adapter.delete(refused)


def test_a_store_does_not_wait_for_the_catalogue(machine):
    driver = machine.open()
    blocks = driver.adapter._blocks
    let_go, entered, enter = threading.Event(), [], blocks._enter

    def slow(name):
        assert let_go.wait(30)
        enter(name)
        entered.append(name)

    blocks._enter = slow
    keys = driver.fill(4) + driver.fill(4, model="second")
    assert driver.load(keys, [BLOCK] * 8) == [True] * 8
    assert not entered and not list(blocks._catalogue.list())
    let_go.set()
    driver.adapter.close()  # waits for what is still to be entered
    assert [name[0] for name in entered] == ["org/model", "second"]
    driver = machine.open()
    wait_for(lambda: driver.adapter.report_status()["recovered"])
    assert driver.adapter.get_usage().total_bytes_used == 8 * BLOCK


def test_no_keys_at_all(machine):
    driver = machine.open()
    assert driver.store([], []).is_successful()
    assert driver.lookup([]) == [] and driver.load([], []) == []
    driver.adapter.submit_unlock([])
    driver.adapter.delete([])


def test_keys_and_objects_must_match(machine):
    driver = machine.open()
    with pytest.raises(ValueError, match="2 keys and 1 objects"):
        driver.adapter.submit_store_task([make_key(1), make_key(2)], [machine.memory.cut(10)])


def test_a_closed_adapter_says_so(machine):
    driver = machine.open()
    keys = driver.fill(2)
    driver.adapter.close()
    driver.adapter.close()
    for call in (lambda: driver.adapter.submit_store_task(keys, [machine.memory.cut(1)] * 2),
                 lambda: driver.adapter.submit_lookup_and_lock_task(keys, {}),
                 lambda: driver.adapter.submit_load_task(keys, [machine.memory.cut(1)] * 2),
                 lambda: driver.adapter.delete(keys), driver.adapter.list_l2_keys):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    driver.adapter.submit_unlock(keys)  # must never fail
    assert driver.adapter.query_load_result(1) is None
    assert driver.adapter.pop_completed_store_tasks() == {}
    assert not driver.adapter.report_status()["is_healthy"]


def test_closing_with_transfers_under_way(machine):
    driver = machine.open()
    keys = driver.fill(200)
    for start in range(0, 200, 20):
        part = keys[start:start + 20]
        driver.adapter.submit_load_task(part, [machine.memory.cut(BLOCK) for _ in part])
    driver.adapter.close()
    machine.memory.tensor.fill_(7)
    assert bool((machine.memory.tensor == 7).all()), "the device still wrote after close"


def test_listing(machine):
    driver = machine.open()
    keys = driver.fill(130) + driver.fill(5, model="other") + driver.fill(3, salt="s", group=2)

    def listing(**how):
        entries, cursor = [], None
        while True:
            page = driver.adapter.list_l2_keys(page_size=50, cursor=cursor, **how)
            assert len(page.entries) <= 50
            entries += page.entries
            cursor = page.next_page_token
            if cursor is None:
                return entries

    assert {e.key.to_object_key() for e in listing()} == set(keys)
    assert all(entry.size_bytes == BLOCK for entry in listing())
    assert {e.key.model_name for e in listing(model_name="other")} == {"other"}
    assert len(listing(model_name="other")) == 5
    assert listing(model_name="unknown") == []
    first = driver.adapter.list_l2_keys(page_size=50)
    second = driver.adapter.list_l2_keys(page_size=50, cursor=first.next_page_token)
    assert second == driver.adapter.list_l2_keys(page_size=50, cursor=first.next_page_token)
    for size, cursor in ((0, None), (-1, None), (10, "nonsense"), (10, "a.b.c")):
        with pytest.raises(ValueError):
            driver.adapter.list_l2_keys(page_size=size, cursor=cursor)
