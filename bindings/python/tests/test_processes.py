"""Forks, spawned processes, and the interpreter's exit."""

import os
import signal
import subprocess
import sys
import time

import pytest

import hearth
from conftest import SMALL, Space

OPEN = """
import asyncio, gc, os, sys, threading
import hearth
from conftest import SMALL, Space, payload
store = hearth.open(sys.argv[1], **SMALL)
space = Space(store, "script")
keys = space.keys(64)
"""
CHECK = OPEN + """
store.wait_recovered()
buffers = [bytearray(65536) for _ in keys]
space.check(keys, buffers, space.ns.get(keys, buffers))
store.close()
print("right")
"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    return path


def test_after_a_fork(run_python, folder):
    """In the child every call is ForkedError; the parent goes on."""
    out = run_python(OPEN + """
import select
queue = store.queue()
region = store.register(bytearray(8192))
space.ns.put(keys, [space.payload(key) for key in keys])
busy = store.queue()
busy.submit_get(space.ns, keys, [bytearray(65536) for _ in keys])
child = os.fork()
if child == 0:
    calls = dict(
        contains=lambda: space.ns.contains(b"k"), many=lambda: space.ns.contains_many([b"k"]),
        prefix=lambda: space.ns.prefix([b"k"]), get=lambda: space.ns.get([b"k"], [bytearray(1)]),
        put=lambda: space.ns.put([b"k"], [b"v"]), delete=lambda: space.ns.delete([b"k"]),
        read=lambda: space.ns.read(b"k"), list=lambda: list(space.ns.list()),
        touch=lambda: space.ns.touch([b"k"]), purge=space.ns.purge,
        flush=store.flush, checkpoint=store.checkpoint, statistics=store.statistics,
        version=lambda: store.durable_version, namespace=lambda: store.namespace({"a": "b"}),
        register=lambda: store.register(bytearray(8192)), queue=store.queue,
        hint=lambda: store.hint("progress"), recovered=store.wait_recovered,
        submit=lambda: queue.submit_get(space.ns, [b"k"], [bytearray(1)]), drain=queue.drain,
        wait=busy.wait, unregister=region.unregister,
        asyncio=lambda: asyncio.run(space.ns.aget([b"k"], [bytearray(1)])))
    wrong = []
    for name, call in calls.items():
        try:
            call()
            wrong.append(name)
        except hearth.ForkedError as error:
            assert error.name == "HEARTH_E_FORKED"
        except BaseException as error:
            wrong.append((name, repr(error)))
    # Letting go of things is quiet: the child has nothing to close.
    busy.close(); queue.close(); space.ns.close(); store.close()
    del busy, queue, region
    gc.collect()
    # A store of its own works.
    os.mkdir(sys.argv[1] + "-child")
    with hearth.open(sys.argv[1] + "-child", **SMALL) as own:
        mine = Space(own, "child")
        mine.fill(4)
    print(wrong, flush=True)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
[(_, results)] = busy.wait()
assert {r.status for r in results} == {"hit"}
store.close()
print("parent")
""", folder, options=["-W", "ignore::DeprecationWarning"])
    assert out == "[]\nparent\n"


def test_spawn(run_python, folder):
    """A spawned process, as engines make their workers, opens stores of its own; results and errors
    travel back."""
    out = run_python("""
import multiprocessing, os, sys
import hearth
from conftest import SMALL, Space

def work(path):
    try:
        with hearth.open(path, **SMALL) as store:
            space = Space(store, "spawned")
            space.fill(8)
            return space.ns.get(space.keys(1), [bytearray(65536)])[0]
    except hearth.LockedError as error:
        return error

if __name__ == "__main__":
    own = sys.argv[1] + "/own"
    os.mkdir(own)
    paths = [own]
    for number in range(2):
        paths.append(f"{sys.argv[1]}/{number}")
        os.mkdir(paths[-1])
    with hearth.open(own, **SMALL) as store:
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            locked, *results = pool.map(work, paths)
    assert type(locked) is hearth.LockedError and locked.name == "HEARTH_E_LOCKED", locked
    assert all(type(r) is hearth.Result and r.status == "hit" for r in results), results
    print("right")
""", folder)
    assert out == "right\n"


EXITS = {
    "left open": "",
    "dropped": "del store, space; gc.collect()",
    "in a cycle": "cycle = [store]; cycle.append(cycle); del store, space, cycle",
    "queue": "q = store.queue(); q.submit_get(space.ns, keys, [bytearray(65536) for _ in keys])",
    "many under way": """
q = store.queue(16)
for _ in range(50):
    q.submit_get(space.ns, keys, [bytearray(65536) for _ in keys])
""",
    "region": "r = store.register(bytearray(1 << 20))",
    "listing": "l = iter(space.ns.list()); next(l)",
    "daemon threads": """
def spin():
    while True:
        space.ns.get(keys, [bytearray(65536) for _ in keys])
for _ in range(3):
    threading.Thread(target=spin, daemon=True).start()
q = store.queue()
def wait():
    while True:
        q.submit_get(space.ns, keys, [bytearray(65536) for _ in keys])
        q.wait()
threading.Thread(target=wait, daemon=True).start()
import time; time.sleep(0.1)
""",
    "sys.exit": "sys.exit(0)",
    "asyncio": """
async def main():
    asyncio.ensure_future(space.ns.aget(keys, [bytearray(65536) for _ in keys]))
    await asyncio.sleep(0)
asyncio.run(main())
""",
    "loop left": """
loop = asyncio.new_event_loop()
async def main():
    await space.ns.aget(keys, [bytearray(65536) for _ in keys])
loop.run_until_complete(main())
loop.close()
""",
    "in a module global of a late object": """
class Late:
    def __del__(self):
        try:
            self.ns.contains(b"k")
        except hearth.ClosedError:
            pass
late = Late(); late.ns = space.ns
""",
}


@pytest.mark.parametrize("how", EXITS)
def test_interpreter_exit(run_python, folder, how):
    """It ends, quietly, and nothing that was acknowledged is gone."""
    quiet = "import threading\nthreading.excepthook = lambda *_: None\n"
    run_python(quiet + OPEN + "space.fill(64)\n" + EXITS[how], folder)
    assert run_python(CHECK, folder) == "right\n"


def test_killed_in_the_middle(tmp_path, folder):
    """SIGKILL while it puts: the next start works, and what was written is there."""
    script = OPEN + """
n = 0
while True:
    more = [b"%d" % i for i in range(n, n + 16)]
    assert all(r.ok for r in space.ns.put(more, [space.payload(k) for k in more]))
    n += 16
    print(n, flush=True)
"""
    path = tmp_path / "killed.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])}
    child = subprocess.Popen([sys.executable, str(path), str(folder)], stdout=subprocess.PIPE,
                             env=environment, text=True)
    count = 0
    while count < 400:
        count = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    count = int(rest[-1]) if rest else count
    with hearth.open(folder, **SMALL) as store:
        store.wait_recovered()
        space = Space(store, "script")
        keys = [b"%d" % i for i in range(count)]
        buffers = [bytearray(65536) for _ in keys]
        results = space.ns.get(keys, buffers)
        for key, buffer, result in zip(keys, buffers, results):
            assert result.status in ("hit", "miss")
            if result.ok:
                assert buffer == space.payload(key)
        assert all(r.ok for r in results[:200])


def test_another_process_holds_it(folder, tmp_path):
    path = tmp_path / "hold.py"
    path.write_text(OPEN + "print('open', flush=True)\nimport time\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])}
    child = subprocess.Popen([sys.executable, str(path), str(folder)], stdout=subprocess.PIPE,
                             env=environment, text=True)
    try:
        assert child.stdout.readline() == "open\n"
        with pytest.raises(hearth.LockedError):
            hearth.open(folder, **SMALL)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    time.sleep(0.1)
    hearth.open(folder, **SMALL).close()
