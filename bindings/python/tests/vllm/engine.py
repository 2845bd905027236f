"""A whole vLLM engine in a process of its own, driven by a description on standard input.

    python engine.py <<< '{"model": DIR, "connector": "hearth", "extra": {...}, "steps": [...]}'

Steps are done in order: `{"generate": [[seed, tokens], ...], "new": n}` runs prompts one by one and
tells time to first token, chosen tokens and log-probabilities; `{"reset": true}` empties the
engine's own prefix cache, so that what follows can only come from the connector; `{"sleep": s}`;
`{"environment": {...}}`; `{"command": [...]}` runs a program in between. The answer is a line of
JSON after "ENGINE "; with `"serve": true` more steps are read after it, a line each.
Connectors: off, hearth, example (vLLM's own), recording (recording.py, Hearth with a witness).
"""

import json
import os
import random
import subprocess
import sys
import time
from typing import Any

MODULES = {"hearth": ("HearthConnector", "hearth.vllm"),
           "recording": ("RecordingConnector", "recording"),
           "example": ("ExampleConnector", None)}
# The model of the acceptance; tests use a smaller one.
FULL = {"vocab_size": 8192, "hidden_size": 1024, "intermediate_size": 2816,
        "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 64}
SMALL = {"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 704,
         "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
         "head_dim": 64}


def make_model(folder: str, shape: dict[str, int], seed: int = 0) -> None:
    """A Llama of this shape with weights from transformers' own initialisation."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(**shape, max_position_embeddings=16384, tie_word_embeddings=False,
                         dtype="bfloat16")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def prompt(seed: int, tokens: int, vocabulary: int) -> list[int]:
    """Tokens that the seed alone decides; prompts of one seed are prefixes of each other."""
    return [random.Random(f"{seed}/{at // 64}").randrange(3, vocabulary) if at % 64 == 0
            else 3 + (seed * 7919 + at * 104729 + at * at * 31) % (vocabulary - 3)
            for at in range(tokens)]


def start(given: dict[str, Any]) -> Any:
    from vllm import LLM
    from vllm.config import KVTransferConfig

    more: dict[str, Any] = dict(given.get("engine", {}))
    if given["connector"] != "off":
        name, module = MODULES[given["connector"]]
        transfer: dict[str, Any] = {
            "kv_connector": name, "kv_role": given.get("role", "kv_both"),
            "kv_connector_extra_config": given.get("extra", {}),
            "kv_load_failure_policy": given.get("policy", "recompute")}
        if module:
            transfer["kv_connector_module_path"] = module
        more["kv_transfer_config"] = KVTransferConfig(**transfer)
    more.setdefault("max_model_len", 4352)
    more.setdefault("max_num_batched_tokens", 8192)
    more.setdefault("kv_cache_memory_bytes", 600 << 20)
    return LLM(model=given["model"], skip_tokenizer_init=True, enforce_eager=True, seed=0,
               enable_prefix_caching=True, **more)


def generate(llm: Any, wanted: list[list[int]], new: int, vocabulary: int) -> list[dict[str, Any]]:
    from vllm import SamplingParams

    sampling = SamplingParams(max_tokens=new, temperature=0.0, logprobs=5, detokenize=False,
                              ignore_eos=True)
    answers = []
    for seed, tokens in wanted:
        ids = prompt(seed, tokens, vocabulary)
        began = time.perf_counter()
        output = llm.generate([{"prompt_token_ids": ids}], sampling, use_tqdm=False)[0]
        seconds = time.perf_counter() - began
        best = output.outputs[0]
        answers.append({
            "seconds": seconds, "tokens": list(best.token_ids),
            "finish": best.finish_reason, "cached": output.num_cached_tokens,
            "logprobs": [{str(token): one.logprob for token, one in position.items()}
                         for position in best.logprobs or []]})
    return answers


def perform(llm: Any, step: dict[str, Any], vocabulary: int) -> Any:
    if "generate" in step:
        return generate(llm, step["generate"], step.get("new", 1), vocabulary)
    if step.get("reset"):
        return llm.reset_prefix_cache(reset_connector=step.get("connector", False))
    if "sleep" in step:
        return time.sleep(step["sleep"])
    if "environment" in step:  # of this process: for engines that run in it
        return os.environ.update(step["environment"])
    return subprocess.run(step["command"], check=True).returncode


def answer(what: Any) -> None:
    print("ENGINE " + json.dumps(what), flush=True)


def main() -> None:
    given = json.loads(sys.stdin.readline())
    with open(os.path.join(given["model"], "config.json"), encoding="utf-8") as file:
        vocabulary = json.load(file)["vocab_size"]
    began = time.perf_counter()
    try:
        llm = start(given)
    except Exception as error:
        return answer({"refused": f"{type(error).__name__}: {error}"})
    ready = time.perf_counter() - began
    answers = [perform(llm, step, vocabulary) for step in given["steps"]]
    answer({"ready": ready, "answers": answers})
    if given.get("serve"):
        for line in sys.stdin:  # a step a line, an answer a line
            answer(perform(llm, json.loads(line), vocabulary))
    if given.get("abrupt"):
        os._exit(0)


if __name__ == "__main__":
    main()
