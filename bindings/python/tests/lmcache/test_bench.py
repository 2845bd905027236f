"""LMCache's own qualification, `lmcache bench l2` with verification, for both types."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from lmcache_support import CLASSES

# KiB a key, submits in flight, keys a submit.
LOADS = [(64, 1, 32), (64, 8, 32), (64, 64, 16), (1024, 1, 16), (1024, 8, 8), (1024, 64, 2),
         (32_768, 1, 2), (32_768, 8, 1), (32_768, 64, 1)]


@pytest.mark.parametrize("kind", list(CLASSES))
@pytest.mark.parametrize("size, in_flight, keys", LOADS)
def test_lmcache_bench_l2(tmp_path, kind, size, in_flight, keys):
    moved = 3 * size * 1024 * in_flight * keys
    # The least that eight segments of 34 largest blocks take, and room for what is stored.
    largest = max(size << 10, 1 << 20)
    spec = {"type": kind, "module_path": "hearth.lmcache", "class_name": CLASSES[kind],
            "adapter_params": {
                "path": str(tmp_path / "store"), "max_block": largest, "segment": 34 * largest,
                "capacity": 34 * largest * 9 + moved + (64 << 20),
                "namespace": {"dtype": "uint8"}}}
    try:
        said = run(spec, size, in_flight, keys)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)  # pytest keeps folders; stores are large
    total = in_flight * keys
    assert f"[Verify] All {total} keys data verified OK." in said
    metrics = json.loads(said[said.index("{\n"):said.rindex("}") + 1])["metrics"]
    for operation in (metrics["op_0"], metrics["op_2"]):
        assert operation["rounds_timed_out"] == 0
        assert operation["total_success"] == operation["total_keys"] == 2 * total, operation
    assert metrics["op_1"]["total_success"] == metrics["op_1"]["total_keys"] == 2 * total


def run(spec, size, in_flight, keys):
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "lmcache"), "bench", "l2",
         "--l2-adapter", json.dumps(spec), "--no-skip-verify", "--l1-align-bytes", "4096",
         "--data-size-kb", str(size), "--in-flight", str(in_flight), "--num-keys", str(keys),
         "--rounds", "2", "--lookup-max-hit-rate", "1.0", "--format", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
