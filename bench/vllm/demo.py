"""One mode of `make demo-vllm` (bench/demo-vllm): chat sessions against a whole vLLM engine.

    tools/vllm-python bench/vllm/demo.py
        MODEL MODE FOLDER SESSIONS TURNS TOKENS NEW KV_TOKENS GAP DTYPE

Each session takes TURNS turns; a turn's prompt is all that was said before and TOKENS new tokens,
the answer is NEW tokens. Turns of a session follow each other after an exponential pause of GAP
seconds in the mean, and sessions begin the same way, so that arrivals are about Poisson. All of it
comes from one seed: every mode sees the same prompts, with the same pauses. Time to first token
counts from the arrival. The result is a line of JSON after "DEMO ".
"""

import heapq
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]
                       / "bindings" / "python" / "tests" / "vllm"))

# One process, so that its I/O can be told from /proc.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# With a connector vLLM sets one core more aside; compared is with the same cores.
os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "1")

import engine  # noqa: E402


def device_bytes() -> dict[str, int]:
    """What this process has read from and written to devices, as the kernel counts."""
    with open("/proc/self/io", encoding="ascii") as file:
        fields = dict(line.split(": ") for line in file.read().splitlines())
    return {"read": int(fields["read_bytes"]), "written": int(fields["write_bytes"])}


def play(core: Any, sessions: int, turns: int, tokens: int, new: int, gap: float
         ) -> list[dict[str, float]]:
    """Runs all sessions; returns a record a turn."""
    from vllm import SamplingParams

    chance = random.Random(11)
    sampling = SamplingParams(max_tokens=new, temperature=0.0, detokenize=False, ignore_eos=True)
    said: list[list[int]] = [[] for _ in range(sessions)]
    pauses = [[chance.expovariate(1 / gap) for _ in range(turns)] for _ in range(sessions)]
    words = [[[chance.randrange(3, 8192) for _ in range(tokens)] for _ in range(turns)]
             for _ in range(sessions)]
    due = [(pauses[session][0], session, 0) for session in range(sessions)]
    heapq.heapify(due)
    running: dict[str, dict[str, Any]] = {}
    done: list[dict[str, float]] = []
    zero = time.perf_counter()
    while due or running:
        now = time.perf_counter() - zero
        while due and due[0][0] <= now:
            arrival, session, turn = heapq.heappop(due)
            said[session] += words[session][turn]
            name = f"{session}/{turn}"
            running[name] = {"arrival": arrival, "session": session, "turn": turn, "first": None}
            core.add_request(name, {"prompt_token_ids": list(said[session])}, sampling)
        if not running:
            time.sleep(max(0.0, due[0][0] - now))
            continue
        for output in core.step():
            now = time.perf_counter() - zero
            one = running[output.request_id]
            if one["first"] is None and output.outputs[0].token_ids:
                one["first"] = now
            if output.finished:
                del running[output.request_id]
                session, turn = one["session"], one["turn"]
                said[session] += output.outputs[0].token_ids
                done.append({"ttft": one["first"] - one["arrival"], "end": now, "turn": turn,
                             "cached": output.num_cached_tokens or 0,
                             "prompt": len(output.prompt_token_ids)})
                if turn + 1 < turns:
                    heapq.heappush(due, (now + pauses[session][turn + 1], session, turn + 1))
    return done


def main() -> None:
    model, mode, folder = sys.argv[1:4]
    sessions, turns, tokens, new, kv_tokens = (int(word) for word in sys.argv[4:9])
    gap, dtype = float(sys.argv[9]), sys.argv[10]
    token = (32 if dtype == "bfloat16" else 64) << 10
    # Little memory, so that what returns comes from the device.
    extra = {"hearth": {"path": folder, "capacity": "8GiB", "memory": "256MiB"},
             "example": {"shared_storage_path": folder}}.get(mode, {})
    llm = engine.start({
        "model": model, "connector": mode, "extra": extra, "steps": [],
        "engine": {"dtype": dtype, "kv_cache_memory_bytes": kv_tokens * token, "max_num_seqs": 8,
                   "max_model_len": (tokens + new) * turns + 128}})
    engine.generate(llm, [[5, 200]], 2, 8192)
    before = device_bytes()
    began = time.perf_counter()
    done = play(llm.llm_engine, sessions, turns, tokens, new, gap)
    seconds = time.perf_counter() - began
    after = device_bytes()
    waits = sorted(one["ttft"] for one in done)
    print("DEMO " + json.dumps({
        "mode": mode, "mean": sum(waits) / len(waits),
        "p99": waits[min(len(waits) - 1, int(0.99 * len(waits)))], "seconds": seconds,
        "rate": sum(one["prompt"] + new for one in done) / seconds,
        "new_rate": len(done) * new / seconds,
        "cached": sum(one["cached"] for one in done) / sum(one["prompt"] for one in done),
        "read": after["read"] - before["read"], "written": after["written"] - before["written"],
    }), flush=True)
    os._exit(0) if mode != "hearth" else None


if __name__ == "__main__":
    main()
