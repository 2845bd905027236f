"""The stub is the interface: it says what is there, and nothing else is."""

import os
import pickle
import shutil
import subprocess
import sys

import pytest

import hearth
from conftest import SMALL


def test_stub_matches_the_runtime(tmp_path):
    pytest.importorskip("mypy", reason="the test venv has mypy: tools/venv test")
    # By itself, without the engines' packages: what those import is not there.
    folder = os.path.dirname(hearth.__file__)
    os.mkdir(tmp_path / "hearth")
    for name in os.listdir(folder):
        if os.path.isfile(os.path.join(folder, name)):
            shutil.copy(os.path.join(folder, name), tmp_path / "hearth")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "hearth", "--ignore-missing-stub",
         "--allowlist", os.path.join(os.path.dirname(__file__), "stubtest_allowlist.txt")],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "MYPYPATH": str(tmp_path), "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stdout


def test_package_is_typed_and_complete():
    folder = os.path.dirname(hearth.__file__)
    for name in ("py.typed", "__init__.pyi", "libhearth.so.1"):
        assert os.path.exists(os.path.join(folder, name)), name


def test_the_library_beside_the_extension_is_the_one_in_use():
    folder = os.path.dirname(os.path.realpath(hearth.__file__))
    with open("/proc/self/maps", encoding="utf-8") as file:
        used = {line.split(maxsplit=5)[5].strip() for line in file if "libhearth" in line}
    assert used == {os.path.join(folder, "libhearth.so.1")}


def test_version():
    major, minor = hearth.version().split(".")
    assert int(major) == 1 and int(minor) >= 0


def test_result_is_a_named_tuple():
    result = hearth.Result("hit", "", "dram", 7, 10, 10, 0, 0)
    assert result.ok and result == ("hit", "", "dram", 7, 10, 10, 0, 0)
    assert result._replace(status="miss").ok is False
    assert hearth.Result._fields == (
        "status", "reason", "tier", "version", "length", "delivered", "errno", "retry_ns")
    status, *_ = result
    assert status == "hit"


@pytest.mark.parametrize("status,ok", [
    ("stored", True), ("already-present", True), ("hit", True), ("deleted", True), ("done", True),
    ("miss", False), ("throttled", False), ("cancelled", False), ("not-found", False),
])
def test_ok(status, ok):
    assert hearth.Result(status, "", "", 0, 0, 0, 0, 0).ok is ok


def test_results_of_the_store_are_of_the_type_and_travel(space):
    [result] = space.ns.put([b"key"], [b"bytes"])
    assert type(result) is hearth.Result
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result and type(copy) is hearth.Result
    # Interned: an `is` of names is enough for a fast path.
    [again] = space.ns.put([b"key"], [b"bytes"])
    assert again.status is sys.intern("already-present")


def test_errors_travel():
    with pytest.raises(hearth.Error) as caught:
        hearth.open("/tmp", no_such_option=1)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.code, copy.name, str(copy)) == (
        hearth.Error, -2, "HEARTH_E_ARGUMENT", str(caught.value))


@pytest.mark.parametrize("name", ["Store", "Namespace", "Queue", "Region"])
def test_objects_come_from_calls_only(name):
    with pytest.raises(TypeError):
        getattr(hearth, name)()
    with pytest.raises(TypeError):
        type("Sub", (getattr(hearth, name),), {})


def test_import_opens_nothing(run_python):
    out = run_python("""
        import os, threading
        before = set(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        import hearth
        hearth.version()
        after = set(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        print(before == after)
    """)
    assert out == "True\n"


def test_the_example_of_the_documentation(tmp_path, capsys):
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "../../../docs/python.md"), encoding="utf-8") as file:
        example = file.read().split("```python\n")[1].split("```")[0]
    assert '"/mnt/nvme/hearth", capacity="100GiB"' in example
    exec(example.replace('"/mnt/nvme/hearth", capacity="100GiB"', "path, **options"),
         {"path": tmp_path, "options": SMALL})
    assert capsys.readouterr().out == "hit dram 65536\n" * 2
