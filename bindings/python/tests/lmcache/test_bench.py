"""LMCache's own qualification, `lmcache bench l2` with verification, for both types: its command's
own entry, called here since a process for each spends most of its time importing."""

import json
import shutil

import pytest
from lmcache.cli.main import main
from lmcache_support import CLASSES

# KiB a key, submits in flight, keys a submit.
LOADS = [(64, 1, 32), (64, 8, 32), (64, 64, 16), (1024, 1, 16), (1024, 8, 8), (1024, 64, 2),
         (32_768, 1, 2), (32_768, 8, 1), (32_768, 32, 1)]
# KiB a round from which on there is no round to warm up.
LARGE = 1 << 20


@pytest.mark.parametrize("kind", list(CLASSES))
@pytest.mark.parametrize("size, in_flight, keys", LOADS)
def test_lmcache_bench_l2(tmp_path, capfd, kind, size, in_flight, keys):
    warmup = int(size * in_flight * keys < LARGE)
    moved = (1 + warmup) * size * 1024 * in_flight * keys
    # The least that eight segments of 34 largest blocks take, and room for what is stored.
    largest = max(size << 10, 1 << 20)
    spec = {"type": kind, "module_path": "hearth.lmcache", "class_name": CLASSES[kind],
            "adapter_params": {
                "path": str(tmp_path / "store"), "max_block": largest, "segment": 34 * largest,
                "capacity": 34 * largest * 9 + moved + (64 << 20),
                "namespace": {"dtype": "uint8"}}}
    arguments = [
        "bench", "l2", "--l2-adapter", json.dumps(spec), "--no-skip-verify",
        "--l1-align-bytes", "4096", "--data-size-kb", str(size), "--in-flight", str(in_flight),
        "--num-keys", str(keys), "--rounds", "1", "--warmup-rounds", str(warmup),
        "--lookup-max-hit-rate", "1.0", "--format", "json"]
    capfd.readouterr()
    try:
        main(arguments)  # SystemExit where anything failed
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)  # pytest keeps folders; stores are large
    said = capfd.readouterr().out
    total = in_flight * keys
    assert f"[Verify] All {total} keys data verified OK." in said
    metrics = json.loads(said[said.index("{\n"):said.rindex("}") + 1])["metrics"]
    for operation in (metrics["op_0"], metrics["op_1"], metrics["op_2"]):
        assert operation["total_success"] == operation["total_keys"] == total, operation
    for operation in (metrics["op_0"], metrics["op_2"]):
        assert operation["rounds_timed_out"] == 0
