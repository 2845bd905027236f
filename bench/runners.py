"""One measured run each: fio, hearth-bench as fio, and hearth-bench's own rows.

Every function returns plain numbers; a run that fails raises RunFailed with what the program said.
"""

import glob
import json
import os
import select
import signal
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BENCH = os.path.join(ROOT, ".build", "release", "hearth-bench")
GIB = 1 << 30


class RunFailed(Exception):
    """A program that did not do what was asked."""


def run_json(arguments, environment=None):
    done = subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    command = " ".join(arguments)
    said = (done.stderr or done.stdout).strip()[-1500:]
    if done.returncode != 0:
        raise RunFailed(f"exit {done.returncode}: {command}\n{said}")
    start = done.stdout.find("{")
    try:
        return json.loads(done.stdout[start:] if start > 0 else done.stdout)
    except ValueError:
        raise RunFailed(f"no JSON: {command}\n{said}") from None


def size_of(text):
    factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1].lower())
    return int(text[:-1]) * factor if factor else int(text)


def _direction(report, direction):
    job = report["jobs"][0]
    if job.get("error", 0) != 0:
        raise RunFailed(f"{job['jobname']}: error {job['error']}")
    result = job[direction]
    if result["total_ios"] == 0 or result["bw_bytes"] == 0:
        raise RunFailed(f"{job['jobname']}: nothing was moved")
    seconds = result["runtime"] / 1000
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
    return {
        "rate": result["io_bytes"] / seconds,
        "cpu_per_gib": cpu / (result["io_bytes"] / GIB),
        "job": job,
    }


def fio(rw, block, depth, seconds, files, file_bytes, writes=False):
    """fio on files that are there, direct, with registered files and buffers."""
    arguments = [
        "fio", "--name=fio", "--ioengine=io_uring", f"--rw={rw}", f"--bs={block}",
        f"--iodepth={depth}", "--direct=1", "--fixedbufs=1", "--registerfiles=1",
        f"--runtime={seconds}", "--time_based", "--filename=" + ":".join(files),
        f"--filesize={file_bytes}", f"--size={file_bytes * len(files)}", "--randrepeat=0",
        "--fallocate=none", "--output-format=json",
    ]
    if not writes:
        arguments.append("--readonly")
    return _direction(run_json(arguments), "write" if writes else "read")


def hearth(rw, block, depth, seconds, size, directory, extra=()):
    """hearth-bench with the store as its engine; a read that misses is a failure."""
    result = _direction(run_json([
        BENCH, "--name=rows", f"--directory={directory}", f"--rw={rw}", f"--bs={block}",
        f"--iodepth={depth}", f"--size={size}", f"--runtime={seconds}", "--time_based",
        "--output-format=json", "--eta=never", *extra,
    ]), "write" if "write" in rw else "read")
    missed = result["job"].get("kv", {}).get("misses", 0)
    if missed:
        raise RunFailed(f"{missed} misses on a store that holds every key")
    return result


def row(name, *arguments):
    """One of hearth-bench's own rows (bench/README.md tells their JSON)."""
    report = run_json([BENCH, "row", name, *arguments, "--output-format=json"])
    if "row" not in report:
        raise RunFailed(f"hearth-bench row {name}: no object 'row'")
    return report["row"]


def install_python():
    """Builds the Python package: the Python to run, and the environment that finds it."""
    place = os.path.join(ROOT, ".build", "python-bench")
    done = subprocess.run(
        [os.path.join(ROOT, "tools", "python-install"), place], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RunFailed(f"tools/python-install: {done.stderr.strip()[-1500:]}")
    return done.stdout.strip(), {**os.environ, "PYTHONPATH": os.path.join(place, "site")}


def python_gets(installed, directory, size, depth, seconds):
    """Bytes a second of bench/python.py on the store that a read job of hearth-bench laid out."""
    python, environment = installed
    result = run_json([
        python, os.path.join(ROOT, "bench", "python.py"), f"--directory={directory}",
        f"--value-bytes={size_of(size)}", f"--depth={depth}", f"--seconds={seconds}",
    ], environment)["row"]
    return result["read_bytes"] / result["seconds"]


def fill_and_kill(directory, blocks, block):
    """Fills a store by `row open --phase=fill`, waits for its line of JSON, and kills it."""
    child = subprocess.Popen(
        [BENCH, "row", "open", "--phase=fill", f"--directory={directory}", f"--blocks={blocks}",
         f"--block-bytes={block}", "--output-format=json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        ready, _, _ = select.select([child.stdout], [], [], 600)
        line = child.stdout.readline() if ready else b""
        if not line.strip():
            child.kill()
            raise RunFailed("row open --phase=fill: " + child.stderr.read().decode()[-1500:])
        child.send_signal(signal.SIGKILL)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def drop_caches():
    """True where it could be done (root)."""
    try:
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3\n")
        time.sleep(0.2)
        return True
    except OSError:
        return False


def _written_bytes(path):
    """Bytes from the start up to the first hole or unwritten extent."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE)
    finally:
        os.close(descriptor)


def segments(directory, block):
    """The store's own segment files that are written through, for fio to read: the files, and the
    bytes of each that may be read. Preallocated room that was never written would read as zeros
    without touching the device, so it is left out."""
    found = []
    for path in sorted(glob.glob(os.path.join(directory, "**", "segment-*"), recursive=True)):
        size = os.path.getsize(path)
        written = _written_bytes(path)
        if size and written >= 0.9 * size:
            found.append((path, written))
    if not found:
        raise RunFailed(f"no full segment in {directory}: use a larger --size")
    unit = max(block, 1 << 20)
    usable = min(written for _, written in found) // unit * unit
    return [path for path, _ in found], usable


def plain_file(path, size):
    """A file of that size, every byte written, for fio to write over."""
    run_json([
        "fio", "--name=layout", "--ioengine=io_uring", "--rw=write", "--bs=1m", "--iodepth=8",
        "--direct=1", f"--filename={path}", f"--size={size}", "--end_fsync=1",
        "--output-format=json"])
    return path
