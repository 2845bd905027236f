"""What a namespace is made of: everything on which the bytes of a KV block depend.

Block keys say only which tokens came before. Model, weights, data types, layout, topology and the
code that laid the bytes out go into the namespace, so that a difference in any of them is a miss.
A field that is too strict costs a cold start; one too few would hand out wrong bytes. So version
and processor features are among them.
"""

import hashlib
import json
import os
from typing import Any

import torch

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
# To be raised when the adapters change how they lay blocks out.
FORMAT = "1"


def digest(value: Any) -> str:
    """A short stable hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def weights(model: str, revision: str | None) -> str:
    """Which weights: of a directory, its files' names, sizes and times; of a hub's name, the commit
    in the local cache. A directory that was copied or touched counts as changed: only a cold start.
    """
    if os.path.isdir(model):
        files = []
        for name in sorted(os.listdir(model)):
            if name.endswith(WEIGHTS):
                status = os.stat(os.path.join(model, name))
                files.append((name, status.st_size, status.st_mtime_ns))
            elif name == "config.json":
                with open(os.path.join(model, name), "rb") as file:
                    files.append((name, hashlib.sha256(file.read()).hexdigest()))
        return "files:" + digest(files)
    if os.path.isfile(model):
        status = os.stat(model)
        return "file:" + digest((status.st_size, status.st_mtime_ns))
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(model, "config.json", revision=revision)
    except Exception:  # an optional package, or a name that it refuses: known by name alone
        found = None
    if isinstance(found, str):
        return "commit:" + os.path.basename(os.path.dirname(found))
    return "revision:" + (revision or "")


def machine() -> dict[str, str]:
    """The code that lays KV out: vLLM's version, and where attention runs; kernels for CPUs lay
    keys out as the processor's features have it."""
    import vllm
    from vllm.platforms import current_platform

    device = current_platform.device_type
    features = device
    if device == "cpu":
        tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        features = f"cpu/{torch.backends.cpu.get_cpu_capability()}/amx={int(tiles)}"
    return {"vllm": vllm.__version__, "device": features}


def of_tier(spec: Any, row_bytes: int, salt: str) -> dict[str, str]:
    """The namespace of a tier under vLLM's offloading, from its normalized configuration."""
    config = spec.config
    parallel, cache = config.parallel, config.cache
    groups = [(group.group_id, group.tokens_per_block, group.layer_names)
              for group in config.groups]
    return {
        "engine": "vllm-tier", "format": FORMAT, **machine(),
        "model": config.model.name, "weights": weights(config.model.name, None),
        "dtype": str(config.model.dtype),
        "layout": f"{config.kv_cache_layout}/canonical={config.canonical_layout}"
                  f"/replicated={spec.replicated_layout}",
        "tokens": f"{cache.tokens_per_hash}x{cache.blocks_per_chunk}", "row": str(row_bytes),
        "groups": digest(groups),
        "parallel": f"tp={parallel.tp_size},pp={parallel.pp_size},pcp={parallel.pcp_size},"
                    f"dcp={parallel.dcp_size},world={parallel.world_size}",
        "salt": salt,
    }


def of_connector(vllm_config: Any, kv_cache_config: Any, shapes: list[Any], salt: str
                 ) -> dict[str, str]:
    """The namespace of the connector; `shapes` tells of each layer how a block lies in memory."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    parallel = vllm_config.parallel_config
    group = kv_cache_config.kv_cache_groups[0]
    return {
        "engine": "vllm-connector", "format": FORMAT, **machine(),
        "model": model.model, "weights": weights(model.model, model.revision),
        "config": digest(model.hf_config.to_dict()),
        "quantization": str(model.quantization), "dtype": f"{model.dtype}/{cache.cache_dtype}",
        "layout": str(kv_cache_config.kv_cache_layout),
        "tokens": str(group.kv_cache_spec.block_size),
        "hash": str(cache.prefix_caching_hash_algo), "shapes": digest(shapes),
        "parallel": f"tp={parallel.tensor_parallel_size},pp={parallel.pipeline_parallel_size},"
                    f"dcp={parallel.decode_context_parallel_size}",
        "salt": salt,
    }
