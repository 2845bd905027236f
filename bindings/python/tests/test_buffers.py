"""Every kind of buffer, at every alignment, and what is none."""

import array
import ctypes
import mmap

import numpy
import pytest

from conftest import BLOCK

N = 10_000  # neither a multiple of pages nor of words


def numpy_buffer(value=None):
    return numpy.frombuffer(value, numpy.uint8).copy() if value else numpy.zeros(N, numpy.uint8)


def memoryview_buffer(value=None):
    return memoryview(bytearray(value or N))


def array_buffer(value=None):
    return array.array("B", value or bytes(N))


def ctypes_buffer(value=None):
    return (ctypes.c_ubyte * N)(*(value or bytes(N)))


def mmap_buffer(value=None):
    memory = mmap.mmap(-1, N)
    memory[:] = value or bytes(N)
    return memory


KINDS = [bytearray, numpy_buffer, memoryview_buffer, array_buffer, ctypes_buffer, mmap_buffer]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["direct", "cached"])
def test_objects(space, kind, mode):
    value = space.payload(b"k", length=N)
    assert space.ns.put([b"k"], [kind(value)])[0].ok
    target = bytearray(N) if kind is bytearray else kind()
    [result] = space.ns.get([b"k"], [target], mode=mode)
    assert result.status == "hit" and bytes(target) == value


def test_bytes_and_subclasses_are_sources(space):
    class Mine(bytes):
        pass

    assert all(r.ok for r in space.ns.put([b"a", Mine(b"b")], [b"one", Mine(b"two")]))
    assert space.ns.read(b"a") == b"one" and space.ns.read(b"b") == b"two"


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "bool"])
def test_arrays_of_any_type_and_shape(space, dtype):
    value = (numpy.arange(4096) % 2).astype(dtype).reshape(4, 8, 128)
    assert space.ns.put([b"k"], [value])[0].length == value.nbytes
    target = numpy.empty_like(value)
    assert space.ns.get([b"k"], [target])[0].status == "hit"
    assert (target == value).all()


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 511, 512, 4095, 4096, 4097])
@pytest.mark.parametrize("length", [1, 4096, 65536, 65537])
def test_any_alignment(space, offset, length):
    key = b"%d/%d" % (offset, length)
    memory = mmap.mmap(-1, 1 << 18)
    value = space.payload(key, length=length)
    memory[offset:offset + length] = value
    assert space.ns.put([key], [memoryview(memory)[offset:offset + length]])[0].ok
    memory[:] = b"\xee" * (1 << 18)
    with memoryview(memory) as whole, whole[offset:offset + length] as part:
        assert space.ns.get([key], [part])[0].status == "hit"
    assert memory[offset:offset + length] == value
    assert memory[:offset] == b"\xee" * offset
    assert memory[offset + length:] == b"\xee" * ((1 << 18) - offset - length)


def address_of(buffer):
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def test_addresses(space):
    value = bytearray(space.payload(b"k"))
    assert space.ns.put([b"k"], [(address_of(value), BLOCK)])[0].ok
    target = numpy.zeros(BLOCK, numpy.uint8)
    assert space.ns.get([b"k"], [(target.ctypes.data, target.nbytes)])[0].status == "hit"
    assert target.tobytes() == value
    # numpy's own integers are numbers, too.
    pair = (numpy.uint64(target.ctypes.data), numpy.int64(target.nbytes))
    assert space.ns.get([b"k"], [pair])[0].status == "hit"


def test_regions(store, space):
    memory = mmap.mmap(-1, 1 << 20)
    region = store.register(memory)
    assert region.length == 1 << 20 and region.number > 0
    assert region.address == address_of(memory)
    keys = space.keys(16)
    for index, key in enumerate(keys):
        memory[index * BLOCK:(index + 1) * BLOCK] = space.payload(key)
    parts = [region[index * BLOCK:(index + 1) * BLOCK] for index in range(16)]
    assert parts[1] == (region, BLOCK, BLOCK)
    assert all(r.ok for r in space.ns.put(keys, parts))
    memory[:] = bytes(1 << 20)
    results = space.ns.get(keys, parts[::-1])
    blocks = [memory[i * BLOCK:(i + 1) * BLOCK] for i in range(16)][::-1]
    space.check(keys, blocks, results)
    assert region[:] == (region, 0, 1 << 20)
    region.unregister()
    with pytest.raises(ValueError, match="not registered"):
        space.ns.get(keys[:1], parts[:1])
    memory.close()


def test_registering_raw_memory_and_shared_memory(store, space, tmp_path):
    import os
    descriptor = os.memfd_create("region")
    os.ftruncate(descriptor, 1 << 18)
    memory = mmap.mmap(descriptor, 1 << 18)
    region = store.register(memory, descriptor=descriptor)
    memory[:BLOCK] = space.payload(b"k")
    assert space.ns.put([b"k"], [region[:BLOCK]])[0].ok
    region.unregister()
    for arguments in ({"address": address_of(memory), "length": 1 << 18},
                      {"buffer": (address_of(memory), 1 << 18)}):
        region = store.register(**arguments)
        memory[:] = bytes(1 << 18)
        assert space.ns.get([b"k"], [region[BLOCK:2 * BLOCK]])[0].status == "hit"
        assert memory[BLOCK:2 * BLOCK] == space.payload(b"k")
        region.unregister()
    os.close(descriptor)


@pytest.mark.parametrize("arguments,error", [
    ({}, TypeError), ({"buffer": b"read-only"}, BufferError), ({"buffer": 5}, TypeError),
    ({"address": 4096}, TypeError), ({"address": 0, "length": 10}, ValueError),
    ({"address": 4096, "length": 0}, ValueError), ({"address": -1, "length": 10}, ValueError),
    ({"buffer": bytearray(), }, ValueError),
    ({"buffer": bytearray(8192), "length": 5}, TypeError),
    ({"buffer": bytearray(8192), "descriptor": -7}, ValueError),
    ({"buffer": bytearray(8192), "descriptor": "3"}, TypeError),
])
def test_what_is_no_region(store, arguments, error):
    with pytest.raises(error):
        store.register(**arguments)


def test_slices_of_regions_are_not_clipped(store):
    region = store.register(bytearray(8192))
    for part in (slice(0, 8193), slice(8193, 9000), slice(5, 4)):
        with pytest.raises(IndexError):
            region[part]
    for part in (slice(-1, None), slice(0, 10, 2)):
        with pytest.raises(ValueError):
            region[part]
    with pytest.raises(TypeError):
        region[0]
    with pytest.raises(TypeError):
        region[0:"a"]
    region.unregister()


def test_pieces(store, space):
    region = store.register(bytearray(1 << 17))
    lengths = [1, 4095, 4096, 100, 57244]
    assert sum(lengths) == BLOCK
    value = space.payload(b"k")
    cut, start = [], 0
    for length in lengths:
        cut.append(value[start:start + length])
        start += length
    assert space.ns.put([b"k"], [cut])[0].ok
    raw = bytearray(4096)
    pieces = [bytearray(1), numpy.zeros(4095, numpy.uint8), (address_of(raw), 4096),
              memoryview(bytearray(100)), region[10:10 + 57244]]
    [result] = space.ns.get([b"k"], [pieces])
    assert result.status == "hit" and result.delivered == BLOCK
    whole = space.ns.read(b"k")
    assert whole == value
    got = [bytes(pieces[0]), pieces[1].tobytes(), bytes(raw), bytes(pieces[3]),
           ctypes.string_at(region.address + 10, 57244)]
    assert b"".join(got) == value
    assert space.ns.put([b"many"], [[value[i:i + 64] for i in range(0, BLOCK, 64)]])[0].ok
    assert space.ns.read(b"many") == value
    region.unregister()


@pytest.mark.parametrize("buffer,error,word", [
    (b"read-only", BufferError, "buffers\\[0\\]: .*writable"),
    (memoryview(b"read-only"), BufferError, "writable"),
    (numpy.zeros((8, 8), numpy.uint8)[:, ::2], BufferError, "contiguous"),
    (numpy.zeros((8, 8), numpy.uint8, order="F")[1:], BufferError, "contiguous"),
    (5, TypeError, "buffers\\[0\\] is a int"), (None, TypeError, "NoneType"),
    ("text", TypeError, "str"), ((1, 2, 3), TypeError, "tuple"), ((), TypeError, "tuple"),
    ((0, 10), ValueError, "address 0"), ((-5, 10), ValueError, "address"),
    ((1 << 64, 10), ValueError, "address"), (("a", 10), TypeError, "address"),
    (((1 << 64) - 1, 10), ValueError, "no memory"),
    ([[bytearray(1)]], TypeError, "list"), ([bytearray(1), 7], TypeError, "int"),
])
def test_what_is_no_buffer(space, buffer, error, word):
    with pytest.raises(error, match=word):
        space.ns.get([b"k"], [buffer])


def test_read_only_arrays(space):
    value = numpy.frombuffer(bytes(100), numpy.uint8)
    assert space.ns.put([b"k"], [value])[0].ok
    with pytest.raises(BufferError, match="read-only"):
        space.ns.get([b"k"], [value])


def test_a_region_is_checked_against_store_and_bounds(store, space, tmp_path):
    import hearth
    from conftest import SMALL
    region = store.register(bytearray(8192))
    for part in ((region, 0, 8193), (region, 8192, 1), (region, -1, 1), (region, 1 << 63, 1 << 63)):
        with pytest.raises(ValueError):
            space.ns.get([b"k"], [part])
    with hearth.open(tmp_path, **SMALL) as other:
        foreign = other.register(bytearray(8192))
        with pytest.raises(ValueError, match="another store"):
            space.ns.get([b"k"], [foreign[:]])
        with pytest.raises(ValueError, match="another store"):
            store.queue().submit_get(other.namespace({"a": "b"}), [b"k"], [bytearray(1)])
    region.unregister()


def test_empty_buffers_are_answered_by_the_store(space):
    assert space.ns.put([b"k"], [b""])[0].status == "invalid"
    assert space.ns.put([b"k"], [[]])[0].status == "invalid"
    assert not space.ns.contains(b"k")


def test_buffers_are_let_go(space):
    value, target = bytearray(space.payload(b"k")), bytearray(BLOCK)
    space.ns.put([b"k"], [value])
    space.ns.get([b"k"], [[target]])
    value.append(0)
    target.append(0)
    # Also where a later one of the batch is wrong.
    with pytest.raises(TypeError):
        space.ns.get([b"k", b"l"], [target, 5])
    target.append(0)
