"""Statistics and hints."""

import pytest

import hearth


def numbers(tree):
    for value in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(value, (dict, list)):
            yield from numbers(value)
        elif isinstance(value, (int, float)):
            yield value


def test_statistics_count(store, space):
    before = store.statistics()
    keys = space.fill(7, length=1000)
    space.ns.get(keys, [bytearray(1000) for _ in keys])
    space.ns.get([b"absent"], [bytearray(1)])
    after = store.statistics()
    gets, was = after["gets"], before["gets"]
    hits = sum(gets[k] - was[k] for k in ("hitsStaging", "hitsDevice", "hitsOnCaller"))
    assert hits == 7 and gets["misses"] - was["misses"] == 1
    assert list(numbers(after))


def test_prometheus(store):
    text = store.prometheus()
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(samples) > 10
    for line in samples:
        name, value = line.rsplit(" ", 1)
        assert name.startswith("hearth_")
        float(value)
    assert text.endswith("\n")


KINDS = {
    "chain": {"request": 7, "when_ns": 10 ** 9}, "pages": {
        "step": 1, "layer": 2, "first": 0, "number": 4, "confidence": 0.5},
    "progress": {"request": 7, "step": 3, "layer": 4}, "session": {
        "session": 9, "state": "tool-pending", "when_ns": 5},
    "touched": {}, "cancel": {"request": 7}, "release": {}, "admitted": {}, "evicted": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_hints_are_taken(store, space, kind):
    keys = space.keys(3) if kind in ("chain", "pages", "touched", "release", "admitted") else []
    how = {"space": space.ns, "keys": keys} if keys else {}
    assert store.hint(kind, **how, **KINDS[kind]) == 1


@pytest.mark.parametrize("state", ["open", "tool-pending", "idle", "one-shot", "closed"])
def test_states(store, state):
    assert store.hint("session", session=1, state=state) == 1


@pytest.mark.parametrize("how,error,word", [
    ({"kind": "wish"}, ValueError, '"chain"'), ({"kind": 0}, TypeError, "kind"),
    ({}, TypeError, "'kind' is missing"),
    ({"kind": "session", "state": "gone"}, ValueError, "state"),
    ({"kind": "pages", "confidence": 1.5}, ValueError, "confidence"),
    ({"kind": "pages", "confidence": float("nan")}, ValueError, "confidence"),
    ({"kind": "pages", "confidence": "x"}, TypeError, "str"),
    ({"kind": "pages", "layer": -1}, ValueError, "layer"),
    ({"kind": "chain", "keys": [b"k"]}, ValueError, "space"),
    ({"kind": "chain", "keys": ["k"]}, TypeError, "keys\\[0\\]"),
    ({"kind": "chain", "space": "ns"}, TypeError, "space"),
    ({"kind": "chain", "request": 1 << 64}, ValueError, "request"),
])
def test_wrong_hints(store, how, error, word):
    with pytest.raises(error, match=word):
        store.hint(**how)


@pytest.mark.parametrize("fields,error", [
    ({"a": 1}, TypeError), ({1: "a"}, TypeError), ([("a",)], TypeError), (["ab"], TypeError),
    ("ab", TypeError), (None, TypeError), ({"a\0": "b"}, ValueError), ([("a", "b\0")], ValueError),
])
def test_wrong_fields(store, fields, error):
    with pytest.raises(error, match="fields"):
        store.namespace(fields)


def test_fields(store):
    a = store.namespace([("model", "m"), ("dtype", "bf16")])
    a.put([b"k"], [b"v"])
    assert store.namespace({"model": "m", "dtype": "bf16"}).contains(b"k")
    for other in ({"model": "m"}, {"model": "m", "dtype": "f16"}, {"modell": "m", "dtype": "bf16"},
                  {"model": "m", "dtype": "bf16", "tp": "0"}, {"model": "bf16", "dtype": "m"}):
        assert not store.namespace(other).contains(b"k")
    assert a.store is store


@pytest.mark.parametrize("how,error", [
    ({"layout": "loose"}, ValueError), ({"ttl_seconds": -1}, ValueError),
    ({"cap_bytes": -1}, ValueError), ({"cap_bytes": 1.5}, TypeError), ({"size": 1}, TypeError),
])
def test_wrong_namespaces(store, how, error):
    with pytest.raises(error):
        store.namespace({"a": "b"}, **how)


def test_ttl_of_a_namespace(store):
    import time
    space = store.namespace({"ttl": "1"}, ttl_seconds=1, cap_bytes=1 << 30)
    space.put([b"k"], [b"v"])
    assert space.read(b"k") == b"v"
    time.sleep(2.1)
    assert space.read(b"k") is None


def test_flush_arguments(store):
    for wrong, error in ((-1, ValueError), ("1", TypeError), (1 << 64, ValueError)):
        with pytest.raises(error):
            store.flush(wrong)
    store.flush(None)
    assert isinstance(hearth.version(), str)
