"""HearthNativeClient behind LMCache's own wrapper, and by itself."""

import select

import pytest
import torch
from lmcache.v1.distributed.api import MemoryLayoutDesc
from lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter import (
    NativeConnectorL2Adapter,
    _object_key_to_string,
)
from lmcache_support import PAGE, SMALL, make_key, payload, wait_for

import hearth.lmcache
from hearth.lmcache import keys as hearth_keys

BLOCK = 64 << 10


def test_through_the_wrapper(machine):
    driver = machine.open("native_plugin")
    assert isinstance(driver.adapter, NativeConnectorL2Adapter)
    keys = [make_key(number, salt="s" * (number % 3)) for number in range(40)]
    sizes = [BLOCK + number * 1001 for number in range(40)]
    assert driver.store(keys[:30], sizes[:30]).is_successful()
    assert driver.lookup(keys) == [True] * 30 + [False] * 10
    assert driver.load(keys, sizes) == [True] * 30 + [False] * 10
    assert driver.adapter.get_usage().total_bytes_used == sum(sizes[:30])
    driver.adapter.submit_unlock(keys)
    driver.adapter.delete(keys[:10])
    assert driver.lookup(keys[:30]) == [False] * 10 + [True] * 20
    assert driver.adapter.get_usage().total_bytes_used == sum(sizes[10:30])
    assert driver.adapter.report_status()["is_healthy"]


@pytest.mark.parametrize("length", [1, 4095, 100_001])
@pytest.mark.parametrize("shift", [0, 3])
def test_odd_sizes_and_unaligned_memory(machine, length, shift):
    driver = machine.open("native_plugin")
    keys = [make_key(number) for number in range(3)]
    assert driver.store(keys, [length] * 3, shift=shift).is_successful()
    assert driver.load(keys, [length] * 3, shift=shift + 1) == [True] * 3
    assert driver.load(keys, [length + 1] * 3) == [False] * 3


def test_each_type_has_its_own_objects(machine):
    """A serde may stand before the one and not before the other."""
    told = {"dtype": "uint8"}
    layout = {3: MemoryLayoutDesc(shapes=[torch.Size([BLOCK])], dtypes=[torch.uint8])}
    keys = [make_key(number, rank=0x02010201, group=3, salt="user é") for number in range(8)]
    for revision, kind in enumerate(("plugin", "native_plugin", "plugin", "native_plugin")):
        driver = machine.open(kind, namespace=told)
        expected = [revision > 1] * 8
        assert driver.lookup(keys, layout) == expected
        assert driver.load(keys, [BLOCK] * 8, revision % 2) == expected
        assert driver.store(keys, [BLOCK] * 8, revision % 2).is_successful()
        driver.adapter.close()


def test_a_failed_store_is_told_per_task(machine):
    driver = machine.open("native_plugin")
    keys = [make_key(1), make_key(2)]
    objects = [machine.memory.cut(BLOCK, payload(keys[0], BLOCK)),
               machine.memory.cut((1 << 20) + 1)]
    assert not driver.store_objects(keys, objects).is_successful()
    assert driver.lookup(keys) == [True, False]
    assert driver.load(keys, [BLOCK, (1 << 20) + 1]) == [True, False]


def test_the_client_alone(tmp_path):
    client = hearth.lmcache.HearthNativeClient(
        path=str(tmp_path / "store"), namespace={"dtype": "uint8"}, **SMALL)
    poller = select.poll()
    poller.register(client.event_fd(), select.POLLIN)

    def completion(future):
        while True:
            assert poller.poll(20_000), "no event came"
            for ended in client.drain_completions():
                assert ended[0] == future
                return ended[1:]

    try:
        good = _object_key_to_string(make_key(1))
        bad = ["", "no separators", "m@zz@0@00", "m@0@0@0g", "m@0@0@", "m@0@0@00@s@t"]
        data = payload(make_key(1), BLOCK)
        assert completion(client.submit_batch_set([good], [memoryview(data)])) == (True, "", [True])
        ok, error, found = completion(client.submit_batch_exists([good, *bad]))
        assert (ok, found) == (False, [True] + [False] * len(bad)) and error
        room = bytearray(BLOCK)
        rooms = [memoryview(room), *(memoryview(bytearray(10)) for _ in bad)]
        ok, error, loaded = completion(client.submit_batch_get([good, *bad], rooms))
        assert loaded == [True] + [False] * len(bad) and room == data and not ok and error
        ok, error, stored = completion(client.submit_batch_set([bad[0]], [memoryview(data)]))
        assert not ok and stored == [False]
        # A burst makes the descriptor readable once, and the next lookup does again.
        for count in (5, 1):
            futures = {client.submit_batch_exists([good]) for _ in range(count)}
            assert poller.poll(20_000), "no event came"
            assert {ended[0] for ended in client.drain_completions()} == futures
            assert not poller.poll(0)
        assert completion(client.submit_batch_delete([good])) == (True, "", [True])
        assert completion(client.submit_batch_exists([good])) == (True, "", [False])
        assert not poller.poll(0) and client.drain_completions() == []
        with pytest.raises(ValueError, match="1 keys and 2 buffers"):
            client.submit_batch_get([good], [memoryview(room)] * 2)
    finally:
        client.close()
        client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.submit_batch_exists([good])


def test_keys_that_begin_alike(machine):
    """What a batch of keys with one beginning is taken apart by makes the same of them."""
    client = machine.open("native_plugin").adapter._client
    plain = [_object_key_to_string(make_key(number)) for number in range(8)]
    start = plain[0][:plain[0].rindex("@") + 1]
    odd = [plain[0] + "@salt", start + "00" * 480, start + "00" * 5000, start, start + "0g",
           _object_key_to_string(make_key(3, rank=77)), "other" + plain[1]]
    for text in (plain, *([one, *plain] for one in odd), *([*plain, one] for one in odd)):
        task = hearth.lmcache.native.Task(1, "lookup", text, (), None)
        told = {place: (space, encoded) for space, keys, places in client._grouped(task)
                for encoded, place in zip(keys, places)}
        for place, one in enumerate(text):
            try:
                family, encoded = hearth_keys.encode_text(one)
            except ValueError:
                assert place not in told
                continue
            space = client._blocks.space((*family, hearth.lmcache.native.NATIVE))
            assert told[place] == (space, encoded)
    assert client._alike(plain) is not None and len(client._heads) >= 2


def test_locks_end_with_the_load_or_their_time(machine):
    driver = machine.open("native_plugin", lock_seconds=1, lock_limit_seconds=1)
    keys = driver.fill(6)
    locks = driver.adapter._client._blocks.locks
    driver.lookup(keys)
    wait_for(lambda: locks.pinned() >= 6, what="pins")
    driver.load(keys[:3], [BLOCK] * 3)
    assert locks.held == 3
    wait_for(lambda: locks.held == 0, what="the end of the locks' time")


def test_text_and_object_make_the_same_key():
    for number in range(64):
        key = make_key(number, model=f"org/m-{number}", rank=number << 20 | number,
                       group=number % 5, salt="" if number % 2 else f"salt {number}")
        name, encoded = hearth_keys.encode_text(_object_key_to_string(key))
        assert (name, encoded) == (hearth_keys.family(key), hearth_keys.encode(key))
        assert hearth_keys.decode(encoded, key.model_name) == (
            key.chunk_hash, key.model_name, key.kv_rank, key.object_group_id, key.cache_salt)
    for damaged in (b"", b"\x01", b"\x02" + bytes(40), bytes(15), b"\x01" + b"\xff" * 40):
        with pytest.raises(ValueError):
            hearth_keys.decode(damaged, "m")
    assert hearth_keys.KEY_LIMIT == 512 and PAGE == 4096
