"""What comes about by chance only, brought about: interpose.c stands between extension and library
in a fresh interpreter, and changes what the one tells the other."""

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HEADERS = HERE.parents[2] / "Sources" / "CHearth" / "include"
BEGIN = """
import ctypes, os, select, signal, sys, threading, time, weakref
import hearth
from conftest import SMALL, Space
interposed = ctypes.CDLL(os.environ["HEARTH_TEST_INTERPOSE"])
PASS, RELEASE_FIRST, ANSWER_FIRST, INTERRUPT_AFTER_POLL, INTERRUPT_THEN_FAIL = range(5)
store = hearth.open(sys.argv[1], **SMALL)
space = Space(store)
queue = store.queue()

class Stop(Exception):
    pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGINT, stop)

def is_readable():
    return select.select([queue.fileno()], [], [], 0)[0] != []
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("interpose") / "interpose.so"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    subprocess.run(
        [*compiler[:1], "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
         f"-I{HEADERS}", "-o", str(path), str(HERE / "interpose.c"), "-ldl"], check=True)
    return path


@pytest.fixture
def run(library, run_python, monkeypatch, tmp_path):
    preloaded = [*os.environ.get("LD_PRELOAD", "").split(), str(library)]
    monkeypatch.setenv("LD_PRELOAD", " ".join(preloaded))
    monkeypatch.setenv("HEARTH_TEST_INTERPOSE", str(library))
    folder = tmp_path / "store"
    folder.mkdir()
    return lambda script: run_python(BEGIN + script + "\nstore.close()\n", folder)


@pytest.mark.parametrize("first", ["RELEASE_FIRST", "ANSWER_FIRST"])
def test_a_get_given_up_is_never_another_outcome(run, first):
    """Answer and release of a get that was given up may be taken by two threads, and come to the
    binding in either order: the memory stays until both are there, and the answer is the answer."""
    out = run(f"""
[key] = space.fill(1)
buffer = bytearray(65536)
interposed.interpose({first})
number = queue.submit_get(space.ns, [key], [buffer])
while not interposed.interpose_held():
    assert queue.drain() == []
assert queue.pending == 1
try:
    buffer.append(0)
except BufferError:
    print("held")
[(drained, [result])] = queue.drain()
assert drained == number and queue.pending == 0
buffer.append(0)
print(result.status, result.ok)
# The same in calls that wait.
keys = space.keys(20)
results = space.ns.get(keys, [bytearray(65536) for _ in keys])
print({{(r.status, r.ok) for r in results}})
interposed.interpose(PASS)
""")
    assert out == "held\ntimed-out False\n{('timed-out', False)}\n"


def test_a_wait_that_is_interrupted_leaves_the_descriptor_readable(run):
    """The poll has taken the batch's end and cleared the descriptor when the signal is seen."""
    out = run("""
interposed.interpose(INTERRUPT_AFTER_POLL)
number = queue.submit_put(space.ns, [b"key"], [b"value"])
try:
    queue.wait()
except Stop:
    print("interrupted", queue.pending, is_readable())
[(drained, [result])] = queue.drain()
assert drained == number
print(result.status, is_readable())
""")
    assert out == "interrupted 1 True\nstored False\n"


def test_an_interrupt_is_told_whatever_comes_after_it(run):
    """Not the error of a store that another thread closes then; and the exception is let go."""
    out = run("""
keys, value = space.keys(4), bytearray(65536)
interposed.interpose(INTERRUPT_THEN_FAIL)
try:
    space.ns.put(keys, [value] * 4)
except Stop as error:
    print("interrupted")
    left = weakref.ref(error)
print(left())
value.append(0)
print(space.ns.put([b"after"], [b"works"])[0].status)
""")
    assert out == "interrupted\nNone\nstored\n"


def test_durable_version_gives_up_the_gil(run):
    out = run("""
def work():
    while not interposed.interpose_waiting():
        time.sleep(0.001)
    interposed.interpose_go_on()

thread = threading.Thread(target=work)
thread.start()
print(store.durable_version >= 0)
thread.join()
""")
    assert out == "True\n"


def test_a_message_that_is_not_utf8(run):
    """It is cut at a number of bytes, and may hold a path of any bytes."""
    out = run("""
text = ctypes.create_string_buffer(b"\\xff, cut in caf\\xc3")
interposed.interpose_message(text)
try:
    hearth.open(sys.argv[1], **SMALL)
except hearth.LockedError as error:
    print(ascii(str(error)))
interposed.interpose_message(None)
""")
    assert out == "'\\ufffd, cut in caf\\ufffd'\n"
