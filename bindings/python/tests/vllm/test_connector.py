"""HearthConnector in whole vLLM engines, each in a process of its own, on a small Llama.

Every block's bytes are compared layer by layer as they were saved and as they were loaded, and
log-probabilities with those of an engine without Hearth. What must be noticed is planted too: the
same comparison has to fail then. The full-size measurements are in bench/vllm.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", exc_type=ImportError)
pytest.importorskip("hearth._hearth", exc_type=ImportError)

HERE = Path(__file__).resolve().parent
STORE = {"capacity": "640MiB", "max_block": "2MiB", "segment": "72MiB"}
ENGINE = {"kv_cache_memory_bytes": 120_000_000, "max_model_len": 2048}
PROMPTS = [[1, 1000], [2, 700]]
WHOLE = 7 + 5  # blocks of 128 tokens: the last token of a prompt is always computed
# bfloat16 keeps 8 bits: logits that were summed in another order differ by some of its steps.
TOLERANCE = 0.02


def run(model: Path, connector: str, steps: list[Any], *, extra: Any = None, inside: bool = True,
        record: Any = None, seconds: int = 300, **more: Any) -> dict[str, Any]:
    """Runs an engine; `inside` keeps scheduler and worker in one process, as on GPUs."""
    given = {"model": str(model), "connector": connector, "steps": steps, "engine": ENGINE,
             "extra": {**STORE, **(extra or {})} if connector != "off" else {}, **more}
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "WARNING",
                   "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if inside else "1",
                   "HEARTH_TEST_RECORD": str(record or os.devnull), "HEARTH_TEST_FAULT": "",
                   "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(HERE / "engine.py")], input=json.dumps(given), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=seconds)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ENGINE ")]
    assert lines, f"the engine ended with {done.returncode}:\n{done.stdout[-6000:]}"
    answer = json.loads(lines[-1][len("ENGINE "):])
    answer["log"] = done.stdout
    return answer


def digests(record: Path, what: str) -> dict[str, list[str]]:
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return {key: layers for kind, key, layers in lines if kind == what}


def furthest(one: list[Any], other: list[Any]) -> float:
    """The largest difference of log-probabilities that both name; infinite for other tokens."""
    worst = 0.0
    for mine, theirs in zip(one, other, strict=True):
        if mine["tokens"] != theirs["tokens"]:
            return float("inf")
        for here, there in zip(mine["logprobs"], theirs["logprobs"], strict=True):
            both = here.keys() & there.keys()
            if len(both) < 3:
                return float("inf")
            worst = max(worst, *(abs(here[token] - there[token]) for token in both))
    return worst


@pytest.fixture(scope="module")
def bench():
    """The model, the answers of an engine without Hearth, and a store that another engine filled
    with scheduler and worker in two processes."""
    base = Path(tempfile.mkdtemp(prefix="hearth-vllm-", dir=os.environ.get(
        "HEARTH_TEST_DIR", "/var/tmp")))
    model = base / "model"
    subprocess.run([sys.executable, "-c", "import sys, engine; engine.make_model(sys.argv[1], "
                    "engine.SMALL)", str(model)], check=True, cwd=HERE,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    off = run(model, "off", [{"generate": PROMPTS, "new": 3}])
    first = run(model, "recording",
                [{"generate": PROMPTS, "new": 3}, {"sleep": 1}, {"reset": True},
                 {"generate": PROMPTS, "new": 3}],
                extra={"path": str(base / "store")}, inside=False, record=base / "record")
    yield {"base": base, "model": model, "off": off, "first": first,
           "store": base / "store", "record": base / "record"}
    shutil.rmtree(base)


def copy(bench: Any, name: str) -> Path:
    """The filled store once more, to be damaged."""
    path = bench["base"] / name
    shutil.rmtree(path, ignore_errors=True)
    subprocess.run(["cp", "-a", "--sparse=always", bench["store"], path], check=True)
    return path


def test_saved_and_loaded_bytes_are_equal_within_a_process(bench):
    saved, loaded = digests(bench["record"], "saved"), digests(bench["record"], "loaded")
    assert len(saved) == WHOLE and len(loaded) == WHOLE
    assert loaded == saved
    before, _, _, after = bench["first"]["answers"]
    assert [one["cached"] for one in before] == [0, 0]
    assert [one["cached"] for one in after] == [7 * 128, 5 * 128]
    reference = bench["off"]["answers"][0]
    assert furthest(before, reference) < TOLERANCE
    assert furthest(after, reference) < TOLERANCE


def test_after_a_restart_and_planted_faults_are_noticed(bench, tmp_path):
    """Everything comes from disk, byte by byte what the other process saved. Then the controls:
    two blocks swapped, a layer zeroed, and a bit flipped behind the store's checks each fail the
    very comparison that passed."""
    record = tmp_path / "record"
    faults = ["swap", "zero", "flip"]
    steps: list[Any] = [{"generate": PROMPTS, "new": 3}]
    for fault in faults:
        steps += [{"environment": {"HEARTH_TEST_FAULT": fault,
                                   "HEARTH_TEST_RECORD": str(tmp_path / fault)}},
                  {"reset": True}, {"generate": PROMPTS, "new": 3}]
    answers = run(bench["model"], "recording", steps, extra={"path": str(copy(bench, "again"))},
                  record=record)["answers"]
    saved = digests(bench["record"], "saved")
    assert digests(record, "loaded") == saved
    assert [one["cached"] for one in answers[0]] == [7 * 128, 5 * 128]
    reference = bench["off"]["answers"][0]
    print(f"loaded: log-probabilities differ by {furthest(answers[0], reference):.4f}")
    assert furthest(answers[0], reference) < TOLERANCE
    for fault, answer in zip(faults, answers[3::3]):
        found = digests(tmp_path / fault, "loaded")
        wrong = [key for key in saved if found[key] != saved[key]]
        assert len(wrong) == {"swap": 4, "zero": WHOLE, "flip": 2}[fault], fault
        print(f"{fault}: log-probabilities differ by {furthest(answer, reference):.4f}")
    # Attention does not see a swap: keys carry their position, and a sum has no order. What is
    # missing it must see, or the log-probabilities would prove nothing.
    assert furthest(answers[6], reference) > TOLERANCE


def flip_blocks(store: Path) -> int:
    """Flips a byte in every 64th page of what the segments hold, after their headers."""
    flipped = 0
    for path in store.rglob("segment-*"):
        with open(path, "r+b") as file:
            for at in range(40 * 4096, path.stat().st_size, 64 * 4096):
                file.seek(at)
                page = file.read(4096)
                if not any(page):
                    continue
                file.seek(at + 100)
                file.write(bytes([page[100] ^ 0x10]))
                flipped += 1
    return flipped


@pytest.mark.parametrize("policy", ["recompute", "fail"])
def test_a_corrupted_store_gives_the_same_output(bench, policy):
    """Blocks that fail their check: recomputed, or the request fails, as vLLM was told."""
    store = copy(bench, f"corrupt-{policy}")
    assert flip_blocks(store) > 20
    done = run(bench["model"], "hearth",
               [{"generate": PROMPTS, "new": 3}, {"generate": PROMPTS, "new": 3}],
               extra={"path": str(store)}, policy=policy)
    assert "did not load (failed-check)" in done["log"]
    first, second = done["answers"]
    reference = bench["off"]["answers"][0]
    if policy == "recompute":
        assert furthest(first, reference) < TOLERANCE
    else:
        assert "error" in [one["finish"] for one in first]
    assert furthest(second, reference) < TOLERANCE  # the store has dropped what failed


def test_a_corrupted_store_with_speculative_decoding_gives_the_same_output(bench):
    """vLLM asks for failed blocks before the draft model runs, and so before the saves."""
    store = copy(bench, "corrupt-speculative")
    assert flip_blocks(store) > 20
    draft = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}
    done = run(bench["model"], "hearth",
               [{"generate": PROMPTS, "new": 3}, {"generate": PROMPTS, "new": 3}],
               extra={"path": str(store)}, engine={**ENGINE, "speculative_config": draft})
    assert "answers" in done, done
    assert "did not load (failed-check)" in done["log"]
    reference = bench["off"]["answers"][0]
    assert furthest(done["answers"][0], reference) < TOLERANCE
    assert furthest(done["answers"][1], reference) < TOLERANCE


def test_removed_segments_give_the_same_output(bench):
    store = copy(bench, "removed")
    for path in store.rglob("segment-*"):
        path.unlink()
    done = run(bench["model"], "hearth",
               [{"generate": PROMPTS, "new": 3}, {"sleep": 1}, {"reset": True},
                {"generate": PROMPTS, "new": 3}], extra={"path": str(store)})
    reference = bench["off"]["answers"][0]
    assert [one["cached"] for one in done["answers"][0]] == [0, 0]
    assert [one["cached"] for one in done["answers"][3]] == [7 * 128, 5 * 128]  # saved again
    assert furthest(done["answers"][0], reference) < TOLERANCE
    assert furthest(done["answers"][3], reference) < TOLERANCE


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a full disk needs root")
def test_a_full_disk_gives_the_same_output(bench):
    image, mount = bench["base"] / "image", bench["base"] / "mount"
    mount.mkdir()
    subprocess.run(["truncate", "-s", "400M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mount], check=False).returncode:
        pytest.skip("no loop devices here")
    try:
        done = run(bench["model"], "hearth",
                   [{"generate": PROMPTS, "new": 3}, {"sleep": 1}, {"reset": True},
                    {"generate": PROMPTS, "new": 3}],
                   extra={"path": str(mount / "store")})
    finally:
        subprocess.run(["umount", mount], check=True)
    reference = bench["off"]["answers"][0]
    assert furthest(done["answers"][0], reference) < TOLERANCE
    assert furthest(done["answers"][3], reference) < TOLERANCE


def test_the_path_of_gpus_on_host_memory(bench, tmp_path):
    """`staged` carries blocks through cells of host memory, as for a GPU, here with few cells, so
    that loads wait for room; and reset_connector empties the store."""
    record = tmp_path / "record"
    extra = {"path": str(bench["base"] / "staged"), "staged": True, "staging_bytes": 6 << 20}
    done = run(bench["model"], "recording",
               [{"generate": [[1, 300]], "new": 2}, {"sleep": 0.5}, {"reset": True},
                {"generate": [[1, 300]], "new": 2}, {"reset": True, "connector": True},
                {"generate": [[1, 300]], "new": 2}],
               extra=extra, record=record)
    first, _, _, again, _, purged = done["answers"]
    assert [one[0]["cached"] for one in (first, again, purged)] == [0, 256, 0]
    assert digests(record, "loaded") == {
        key: value for key, value in digests(record, "saved").items()
        if key in digests(record, "loaded")}
    assert len(digests(record, "loaded")) == 2
    assert furthest(again, first) < TOLERANCE and furthest(purged, first) < TOLERANCE


def create(bench: Any, changes: dict[str, Any], extra: dict[str, Any], groups: Any = None,
           **scheduler: Any) -> None:
    """vLLM's own configuration and factory, up to the connector's constructor."""
    import torch
    from vllm.config import KVTransferConfig
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    arguments = EngineArgs(
        model=str(bench["model"]), skip_tokenizer_init=True, enforce_eager=True,
        kv_transfer_config=KVTransferConfig(
            kv_connector="HearthConnector", kv_connector_module_path="hearth.vllm",
            kv_role="kv_both", kv_connector_extra_config=extra,
            kv_load_failure_policy="recompute"), **changes)
    config = arguments.create_engine_config()
    for name, value in scheduler.items():
        setattr(config.scheduler_config, name, value)  # what vLLM turns off on CPUs
    full = FullAttentionSpec(block_size=16, num_kv_heads=4, head_size=64, dtype=torch.bfloat16)
    caches = KVCacheConfig(8, [], groups or [KVCacheGroupSpec(["layer"], full)])
    KVConnectorFactory.create_connector(config, KVConnectorRole.SCHEDULER, caches)


@pytest.mark.parametrize("changes, extra, words", [
    ({"tensor_parallel_size": 2}, {}, "tensor parallelism of 2 would need 2 processes"),
    ({"pipeline_parallel_size": 2}, {}, "pipeline parallelism of 2"),
    ({"enable_prefix_caching": False}, {}, "prefix caching is off"),
    ({}, {"path": None}, "'path' is missing"),
    ({}, {"shard_byte": 1}, "did you mean 'shard_bytes'"),
    ({}, {"shard_bytes": "many"}, "shard_bytes must be a number"),
    ({}, {"durability": "eternal"}, "durability is volatile"),
    ({}, {"ttl_seconds": 0.5}, "ttl_seconds must be a whole number"),
])
def test_what_cannot_work_is_refused_by_name(bench, changes, extra, words):
    with pytest.raises(ValueError, match=words):
        create(bench, changes, {"path": "/nowhere", **STORE, **extra})


def test_what_would_give_out_wrong_tokens_is_refused(bench, monkeypatch):
    """refusals.py, as the connector's constructor asks it."""
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.kv_cache_interface import (
        FullAttentionSpec,
        KVCacheGroupSpec,
        UniformTypeKVCacheSpecs,
    )

    where = {"path": "/nowhere", **STORE}
    with pytest.raises(ValueError, match="--no-async-scheduling"):
        create(bench, {}, where, async_scheduling=True)
    shape = {"block_size": 16, "num_kv_heads": 4, "head_size": 64}
    mixed = UniformTypeKVCacheSpecs(16, {
        "a": FullAttentionSpec(**shape, dtype=torch.bfloat16),
        "b": FullAttentionSpec(**shape, dtype=torch.float32)})
    original = EngineArgs.create_engine_config

    def second(arguments: Any) -> Any:
        config = original(arguments)
        # Only where there is a GPU vLLM takes its second model runner.
        monkeypatch.setattr(type(config), "use_v2_model_runner", True)
        return config

    monkeypatch.setattr(EngineArgs, "create_engine_config", second)
    with pytest.raises(ValueError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        create(bench, {}, where, [KVCacheGroupSpec(["a", "b"], mixed)])


def test_hybrid_models_are_refused(bench):
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheGroupSpec, SlidingWindowSpec

    shape = {"block_size": 16, "num_kv_heads": 4, "head_size": 64, "dtype": torch.bfloat16}
    groups = [KVCacheGroupSpec(["a"], FullAttentionSpec(**shape)),
              KVCacheGroupSpec(["b"], SlidingWindowSpec(**shape, sliding_window=64))]
    with pytest.raises(ValueError, match="one KV cache group of full attention"):
        create(bench, {}, {"path": "/nowhere", **STORE}, groups)


def test_a_directory_in_use_is_refused_with_words(bench):
    import hearth
    from hearth.vllm import options

    path = bench["base"] / "held"
    path.mkdir()
    with hearth.open(str(path), **STORE):
        with pytest.raises(options.ConfigurationError, match="is in use.*directory of its own"):
            options.acquire("HearthConnector", [str(path)], STORE)
    one = options.acquire("HearthConnector", [str(path)], STORE)
    assert options.acquire("HearthConnector", [str(path)], STORE) is one  # shared by count
    options.release(one)
    assert not one.closed
    options.release(one)
    assert one.closed
