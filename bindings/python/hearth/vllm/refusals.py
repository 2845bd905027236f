"""What HearthConnector cannot do, refused when the engine starts, with what to do instead.

Each of these would otherwise show as wrong output or as an engine that hangs: layers that read KV
before it is there, blocks written while they are saved, failures that vLLM acts on too late.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vllm.model_executor.layers.attention.attention import Attention
from vllm.model_executor.layers.attention.mla_attention import MLAAttention
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    MLAAttentionSpec,
    UniformTypeKVCacheSpecs,
)

from hearth.vllm.options import ConfigurationError
from hearth.vllm.pages import WHERE


def refuse_topologies(parallel: Any) -> None:
    """One worker holds the store; what would need several processes on it is refused."""
    for name, words in (
            ("tensor_parallel_size", "tensor parallelism"),
            ("pipeline_parallel_size", "pipeline parallelism"),
            ("prefill_context_parallel_size", "prefill context parallelism"),
            ("decode_context_parallel_size", "decode context parallelism")):
        size = getattr(parallel, name, 1)
        if size > 1:
            raise ConfigurationError(
                f"{WHERE}: {words} of {size} would need {size} processes on one store, which "
                f"Hearth does not do yet. Use {name}=1 with data parallelism, or HearthTier in "
                "vLLM's TieringOffloadingSpec, which takes any topology (docs/vllm.md)")


def one_full_group(kv_cache_config: Any) -> int:
    """The tokens of a block; refuses models whose layers keep different things."""
    groups = kv_cache_config.kv_cache_groups
    spec = groups[0].kv_cache_spec if groups else None
    members = (list(spec.kv_cache_specs.values())
               if isinstance(spec, UniformTypeKVCacheSpecs) else [spec])
    plain = (FullAttentionSpec, MLAAttentionSpec)  # not what is derived from them
    if len(groups) != 1 or not all(type(one) in plain for one in members):
        kinds = sorted({type(one).__name__ for one in members}
                       | {type(group.kv_cache_spec).__name__ for group in groups[1:]})
        raise ConfigurationError(
            f"{WHERE}: it takes models with one KV cache group of full attention, not "
            f"{len(groups)} groups of {', '.join(kinds) or 'nothing'}. Start vLLM with "
            "--disable-hybrid-kv-cache-manager if the model allows it, or use HearthTier in "
            "vLLM's TieringOffloadingSpec (docs/vllm.md)")
    assert spec is not None
    return int(spec.block_size)


def refuse_layers(modules: Mapping[str, Any], names: Sequence[str]) -> None:
    """Every layer of the group must wait for its KV: vLLM calls `wait_for_layer_load` for plain
    attention and MLA, and not for what else keeps a cache, such as the indexers of sparse
    attention."""
    for name in names:
        layer = modules.get(name)
        for kind in (Attention, MLAAttention):
            if isinstance(layer, kind) and type(layer).forward is kind.forward:
                break
        else:
            raise ConfigurationError(
                f"{WHERE}: layer {name} is a {type(layer).__name__}, for which vLLM waits for no "
                "KV: it would be read before it is loaded. This model needs HearthTier in vLLM's "
                "TieringOffloadingSpec (docs/vllm.md)")
        if kind is MLAAttention and layer.use_direct_call:
            raise ConfigurationError(
                f"{WHERE}: on this platform vLLM calls MLA directly and waits for no KV. Use "
                "HearthTier in vLLM's TieringOffloadingSpec (docs/vllm.md)")


def refuse_early_writes(vllm_config: Any, kv_cache_config: Any, block_tokens: int) -> None:
    """The second model runner zeroes and copies new blocks before it tells a connector of the step:
    a save could still be reading them."""
    if not vllm_config.use_v2_model_runner:
        return
    hashed = kv_cache_config.hash_block_size or block_tokens
    if kv_cache_config.needs_kv_cache_zeroing or hashed != block_tokens:
        raise ConfigurationError(
            f"{WHERE}: vLLM's second model runner writes to new blocks of this model before saves "
            "of their old content can end. Set VLLM_USE_V2_MODEL_RUNNER=0")


def refuse_late_recompute(vllm_config: Any) -> None:
    """With asynchronous scheduling vLLM has the next step under way when it hears of a failure, and
    hands out the token that it gives."""
    transfer = vllm_config.kv_transfer_config
    if (vllm_config.scheduler_config.async_scheduling and transfer.is_kv_consumer
            and transfer.kv_load_failure_policy == "recompute"):
        raise ConfigurationError(
            f"{WHERE}: with asynchronous scheduling vLLM gives out a token computed from a block "
            "that failed to load before it recomputes it. Start vLLM with --no-async-scheduling, "
            'or set "kv_load_failure_policy": "fail"')
