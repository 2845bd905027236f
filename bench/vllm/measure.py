"""Measures HearthConnector in a whole vLLM engine against recompute and vLLM's ExampleConnector.

    tools/vllm-python bench/vllm/measure.py [--pairs N] [--seconds N] [--tokens N] [--folder DIR]
        [--dtype bfloat16|float32] [restart|reuse]

`restart`: time to first token of a prompt whose KV is on disk, each in a fresh engine with the page
cache dropped (that needs root), in turns with ExampleConnector; beside it recompute, a one-token
forward, and fio's bandwidth over the same bytes. `reuse`: prompts that never come again, with and
without Hearth, in turns; both engines are alive at the same time and idle in between. Ratios have
the bootstrap interval of their median, and the A/A interval of each run of the baseline to the one
before it (bench/pairs.py).
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2] / "bindings" / "python" / "tests" / "vllm"
sys.path.insert(0, str(TESTS))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import engine  # noqa: E402
import pairs as paired  # noqa: E402

# By type: 16 layers, K and V of 8 heads of 64.
BYTES_A_TOKEN = {"bfloat16": 32 << 10, "float32": 64 << 10}


class Engine:
    """A vLLM engine in a process of its own that does a step at a time."""

    def __init__(self, model: Path, connector: str, extra: dict[str, Any], dtype: str) -> None:
        # With a connector vLLM sets one core more aside; compared is with the same cores.
        environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR",
                       "VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "engine.py")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        self.send({"model": str(model), "connector": connector, "extra": extra, "steps": [],
                   "serve": True, "engine": {
                       "dtype": dtype,
                       "kv_cache_memory_bytes": 19200 * BYTES_A_TOKEN[dtype]}})
        self.receive()

    def send(self, what: Any) -> None:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        for line in self.process.stdout:
            if line.startswith("ENGINE "):
                return json.loads(line[len("ENGINE "):])
        self.log.seek(0)
        raise SystemExit(f"the engine ended:\n{self.log.read()[-4000:]}")

    def generate(self, seed: int, tokens: int, new: int = 1) -> dict[str, Any]:
        self.send({"generate": [[seed, tokens]], "new": new})
        return self.receive()[0]

    def step(self, what: Any) -> Any:
        self.send(what)
        return self.receive()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)


def drop_caches() -> None:
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def fio_seconds(folder: Path, size: int) -> float:
    """The time in which fio reads as many bytes with the best of its block sizes."""
    best = float("inf")
    target = folder / "fio"
    for block in ("256k", "1m", "4m"):
        done = subprocess.run(
            ["fio", "--name=read", f"--filename={target}", "--size=1G", "--rw=read",
             f"--bs={block}", "--direct=1", "--ioengine=io_uring", "--iodepth=32", "--runtime=4",
             "--time_based", "--output-format=json"], check=True, stdout=subprocess.PIPE)
        rate = json.loads(done.stdout)["jobs"][0]["read"]["bw_bytes"]
        best = min(best, size / rate)
    target.unlink()
    return best


def restart(model: Path, folder: Path, pairs: int, seconds: float, tokens: int, dtype: str
            ) -> None:
    extras = {"hearth": {"path": str(folder / "store"), "capacity": "5GiB"},
              "example": {"shared_storage_path": str(folder / "example")}}
    (folder / "example").mkdir()
    recompute, forward = [], []
    for connector, extra in extras.items():
        one = Engine(model, connector, extra, dtype)
        one.generate(99, 256)  # the first run of an engine is slower
        recompute.append(one.generate(1, tokens)["seconds"])
        one.step({"sleep": 1.0})
        one.close()
    off = Engine(model, "off", {}, dtype)
    off.generate(99, 256)
    recompute.append(off.generate(1, tokens)["seconds"])
    for _ in range(5):
        forward.append(off.generate(1, tokens)["seconds"])
    off.close()
    took: dict[str, list[float]] = {"hearth": [], "example": []}
    for pair in rounds(pairs, seconds):
        for connector in (("hearth", "example") if pair % 2 == 0 else ("example", "hearth")):
            one = Engine(model, connector, extras[connector], dtype)
            one.generate(99 + pair, 256)
            drop_caches()
            got = one.generate(1, tokens)
            assert got["cached"] >= tokens - 256, got["cached"]
            took[connector].append(got["seconds"])
            one.close()
    size = tokens // 128 * 128 * BYTES_A_TOKEN[dtype]
    ideal = fio_seconds(folder, size) + statistics.median(forward)
    mine, theirs = (statistics.median(took[name]) for name in ("hearth", "example"))
    again = statistics.median(recompute)
    print(f"{tokens} tokens in {dtype}, {size / 2**20:.0f} MiB of KV; "
          f"{len(took['hearth'])} pairs, medians")
    print(f"  recompute                        {again:8.3f} s")
    print(f"  prefix in the engine's own cache {statistics.median(forward):8.3f} s")
    print(f"  fio's read plus that             {ideal:8.3f} s")
    print(f"  Hearth, after a restart          {mine:8.3f} s   1/{again / mine:.1f} of recompute, "
          f"{mine / ideal:.2f} x fio's (at most 1/12 and 1.3)")
    print(f"  ExampleConnector, the same       {theirs:8.3f} s")
    tell("Hearth over ExampleConnector", took["hearth"], took["example"], "at most 1")


def rounds(pairs: int, seconds: float) -> Iterator[int]:
    """Numbers of pairs, until there are enough or, after two, no time is left."""
    end = time.monotonic() + seconds
    for pair in range(pairs):
        if pair >= 2 and time.monotonic() >= end:
            return
        print(f"pair {pair + 1} of {pairs}", file=sys.stderr, flush=True)
        yield pair


def tell(what: str, mine: list[float], theirs: list[float], bar: str) -> None:
    """Prints the ratio of runs in turns, with its interval and the A/A interval."""
    ratios = [a / b for a, b in zip(mine, theirs)]
    low, high = paired.interval(ratios)
    line = f"  {what}: {paired.median(ratios):.3f} ({low:.3f} to {high:.3f})"
    if len(theirs) > 1:
        low, high = paired.interval([b / a for a, b in zip(theirs, theirs[1:])])
        line += f", A/A {low:.3f} to {high:.3f}"
    print(f"{line}; {bar}")


def reuse(model: Path, folder: Path, pairs: int, seconds: float, tokens: int, dtype: str) -> None:
    engines = {"off": Engine(model, "off", {}, dtype),
               "hearth": Engine(model, "hearth", {"path": str(folder / "none"),
                                                  "capacity": "5GiB"}, dtype)}
    for one in engines.values():
        one.generate(99, 512, 4)
    first: dict[str, list[float]] = {name: [] for name in engines}
    rate: dict[str, list[float]] = {name: [] for name in engines}
    seeds = random.Random(7)
    for pair in rounds(pairs, seconds):
        for name in (("off", "hearth") if pair % 2 == 0 else ("hearth", "off")):
            seed = seeds.randrange(1000, 10**9)
            first[name].append(engines[name].generate(seed, tokens)["seconds"])
            # New tokens after a prompt of its own: saves of the one before run beside them.
            lasted = engines[name].generate(seed + 1, 512, 64)["seconds"]
            rate[name].append((512 + 64) / lasted)
    for one in engines.values():
        one.close()
    print(f"no reuse: prompts of {tokens} tokens in {dtype}; {len(rate['off'])} pairs, "
          "Hearth over off")
    tell("time to first token", first["hearth"], first["off"], "at most 1.03")
    tell("tokens/s", rate["hearth"], rate["off"], "at least 0.97")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=["restart", "reuse"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"),
                        help="no further pair is begun after so long")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--dtype", choices=sorted(BYTES_A_TOKEN), default="bfloat16",
                        help="float32 where the processor has no arithmetic in bfloat16, in which "
                        "a prompt then takes some twenty times as long")
    parser.add_argument("--folder", default="/var/tmp", help="on the device to be measured")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hearth-vllm-bench-", dir=given.folder))
    try:
        model = folder / "model"
        engine.make_model(str(model), engine.FULL)
        for name, function in (("restart", restart), ("reuse", reuse)):
            if given.what in (None, name):
                function(model, folder, given.pairs, given.seconds, given.tokens, given.dtype)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
