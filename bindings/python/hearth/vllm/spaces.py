"""What a namespace is made of: everything on which the bytes of a KV block depend.

Block keys say only which tokens came before. Model, weights, data types, quantization, layout,
topology and the code that laid the bytes out go into the namespace, so that a difference in any of
them is a miss. A field that is too strict costs a cold start; one too few would hand out wrong
bytes. So version and processor features are among them; and where the weights cannot be told by
looking, the engine is refused unless `salt` names them.
"""

import sys
from typing import Any, Optional

import torch

from hearth.vllm import weights
from hearth.vllm.options import ConfigurationError
from hearth.vllm.weights import digest

# To be raised when the adapters change how they lay blocks out.
FORMAT = "1"


def machine() -> dict[str, str]:
    """The code that lays KV out: vLLM's version, and where attention runs; kernels for CPUs lay
    keys out as the processor's features have it, and GPUs choose theirs by what they can."""
    import vllm
    from vllm.platforms import current_platform

    device = current_platform.device_type
    if device == "cpu":
        tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        features = f"cpu/{torch.backends.cpu.get_cpu_capability()}/amx={int(tiles)}"
    else:
        features = f"{device}/{current_platform.get_device_capability()}"
    return {"vllm": vllm.__version__, "device": features}


def of_engine(where: str, vllm_config: Any, salt: str) -> dict[str, str]:
    """The fields that both adapters share, from vLLM's whole configuration. Refuses weights that
    cannot be told from others, unless there is a `salt`."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    loading = vllm_config.load_config
    names: dict[str, str] = {}
    unknown = []
    draft = getattr(vllm_config.speculative_config, "draft_model_config", None)
    draft_loading = getattr(vllm_config.speculative_config, "draft_load_config", None) or loading
    parts = {"weights": (model, loading)}
    if draft is not None and draft is not model:  # its layers keep KV beside the model's
        parts["draft"] = (draft, draft_loading)
    for part, (config, load) in parts.items():
        identity, problem = weights.identify(config, load)
        names[part] = identity
        if problem:
            unknown.append(problem)
        elif part == "draft":
            names[part] += f"/{config.quantization}/{digest(config.hf_config.to_dict())}"
    if vllm_config.lora_config is not None:
        unknown.append("adapters (LoRA) are known by name and path only")
    if unknown and not salt:
        raise ConfigurationError(
            f"{where}: KV that is kept must never meet other weights, and these cannot be told "
            f"apart: {'; '.join(unknown)}. Set 'salt' to a name for the weights, and change it "
            "whenever they change")
    return {
        "model": model.model, **names,
        "config": digest(model.hf_config.to_dict()),
        "quantization": f"{model.quantization}/"
                        f"{digest(repr(getattr(model, 'quantization_config', None)))}",
        "dtype": f"{model.dtype}/{cache.cache_dtype}/"
                 f"{getattr(cache, 'calculate_kv_scales', False)}",
        "hash": str(cache.prefix_caching_hash_algo),
        "attention": digest(repr(getattr(
            getattr(vllm_config, "attention_config", None), "backend", None))),
        "salt": salt,
    }


def of_tier(where: str, spec: Any, row_bytes: int, salt: str) -> dict[str, str]:
    """The namespace of a tier under vLLM's offloading."""
    config = spec.config
    parallel, cache = config.parallel, config.cache
    groups = [(group.group_id, group.tokens_per_block, group.layer_names)
              for group in config.groups]
    fields = {
        "engine": "vllm-tier", "format": FORMAT, **machine(),
        "model": config.model.name, "kv_dtype": str(config.model.dtype),
        "layout": f"{config.kv_cache_layout}/canonical={config.canonical_layout}"
                  f"/replicated={spec.replicated_layout}",
        "tokens": f"{cache.tokens_per_hash}x{cache.blocks_per_chunk}", "row": str(row_bytes),
        "groups": digest(groups),
        "parallel": f"tp={parallel.tp_size},pp={parallel.pp_size},pcp={parallel.pcp_size},"
                    f"dcp={parallel.dcp_size},world={parallel.world_size}",
        "salt": salt,
    }
    vllm_config, kv_cache_config = _configuration(config.engine_id)
    if vllm_config is not None and kv_cache_config is not None:
        if getattr(vllm_config, "weight_transfer_config", None) is not None:
            raise ConfigurationError(
                f"{where}: weight_transfer_config changes weights while the engine runs, and vLLM "
                "tells no tier of it: KV of old weights would be found. Use HearthConnector")
        # Data types, heads and strides of each layer, as vLLM's scheduler knows them.
        shapes = [(group.layer_names, repr(group.kv_cache_spec))
                  for group in kv_cache_config.kv_cache_groups]
        places = [(tensor.layers, tensor.block_stride)
                  for tensor in kv_cache_config.kv_cache_tensors]
        fields |= of_engine(where, vllm_config, salt)
        fields["shapes"] = digest([shapes, places])
    elif not salt:
        raise ConfigurationError(
            f"{where}: this vLLM does not say with which weights and quantization KV is computed. "
            "Set 'salt' to a name for them, and change it whenever they change")
    else:
        fields["weights"] = weights.of_path(config.model.name) or "unknown"
    return fields


def of_connector(where: str, vllm_config: Any, kv_cache_config: Any, shapes: list[Any], salt: str
                 ) -> dict[str, str]:
    """The namespace of the connector; `shapes` tells of each layer how a block lies in memory."""
    parallel = vllm_config.parallel_config
    group = kv_cache_config.kv_cache_groups[0]
    return {
        "engine": "vllm-connector", "format": FORMAT, **machine(),
        **of_engine(where, vllm_config, salt),
        "layout": str(kv_cache_config.kv_cache_layout),
        "tokens": str(group.kv_cache_spec.block_size), "shapes": digest(shapes),
        "parallel": f"tp={parallel.tensor_parallel_size},pp={parallel.pipeline_parallel_size},"
                    f"dcp={parallel.decode_context_parallel_size}",
    }


def _configuration(engine: str) -> tuple[Optional[Any], Optional[Any]]:
    """vLLM's whole configuration of this engine, and that of its KV cache. vLLM hands a tier an
    extract of both, without quantization and revision; the scheduler that builds the tier has
    them, and is among the callers. Where a vLLM has it otherwise, nothing is found, and the
    engine is refused rather than mixed with another."""
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig

    frame = sys._getframe(1)
    while frame is not None:
        whole = frame.f_locals.get("vllm_config")
        caches = frame.f_locals.get("kv_cache_config")
        if (isinstance(whole, VllmConfig) and isinstance(caches, KVCacheConfig)
                and whole.kv_transfer_config is not None
                and whole.kv_transfer_config.engine_id == engine):
            return whole, caches
        frame = frame.f_back  # type: ignore[assignment]
    return None, None
