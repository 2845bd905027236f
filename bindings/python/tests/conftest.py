"""One store for most tests, each in a namespace of its own; payloads that follow from namespace,
key and revision, so that a wrong byte is seen wherever it comes from."""

import hashlib
import itertools
import os
import subprocess
import sys
import textwrap

import pytest

import hearth

BLOCK = 64 << 10
SMALL = {"capacity": "512MiB", "max_block": "1MiB", "segment": "32MiB", "memory": "256MiB"}
_numbers = itertools.count()


def payload(space, key, revision=0, length=BLOCK):
    seed = hashlib.sha256(f"{space}/{revision}/".encode() + key).digest()
    return hashlib.shake_128(seed).digest(length)


class Space:
    """A namespace with its payloads."""

    def __init__(self, store, name=None, **how):
        self.name = name or f"{os.getpid()}-{next(_numbers)}"
        self.store = store
        self.ns = store.namespace({"model": "test", "name": self.name}, **how)

    def payload(self, key, revision=0, length=BLOCK):
        return payload(self.name, key, revision, length)

    def keys(self, count, prefix="key"):
        return [hashlib.sha256(f"{prefix}/{index}".encode()).digest() for index in range(count)]

    def fill(self, count, length=BLOCK, prefix="key"):
        keys = self.keys(count, prefix)
        results = self.ns.put(keys, [self.payload(key, length=length) for key in keys])
        assert [r.status for r in results] == ["stored"] * count
        return keys

    def check(self, keys, buffers, results, length=BLOCK):
        """Every hit is right, and every one is a hit."""
        assert [r.status for r in results] == ["hit"] * len(keys)
        for key, buffer, result in zip(keys, buffers, results):
            assert result.length == result.delivered == length
            assert bytes(buffer) == self.payload(key, length=length)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    with hearth.open(tmp_path_factory.mktemp("store"), **SMALL) as store:
        yield store


@pytest.fixture
def space(store):
    space = Space(store)
    yield space
    space.ns.close()


@pytest.fixture
def run_python(tmp_path):
    """Runs a script in a fresh interpreter; it must end by itself, with exit status 0 and nothing
    on standard error. Gives what it printed."""

    def run(script, *arguments, status=0, options=()):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(script))
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(
            [os.path.dirname(__file__), environment.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, *options, str(path), *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120,
            env=environment)
        assert (done.returncode, done.stderr) == (status, ""), done.stdout
        return done.stdout

    return run
