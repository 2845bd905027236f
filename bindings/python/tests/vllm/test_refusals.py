"""What HearthConnector refuses because vLLM would give out wrong tokens with it."""

import pytest

pytest.importorskip("vllm", exc_type=ImportError)
pytest.importorskip("hearth._hearth", exc_type=ImportError)

from types import SimpleNamespace

import torch
from fakes import attention
from vllm.model_executor.layers.attention.attention import Attention
from vllm.model_executor.layers.attention.mla_attention import MLAAttention
from vllm.model_executor.models.deepseek_v2 import DeepseekV32IndexerCache
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    HiddenStateCacheSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    MLAAttentionSpec,
    UniformTypeKVCacheSpecs,
)

from hearth.vllm import refusals
from hearth.vllm.options import ConfigurationError

SHAPE = {"block_size": 16, "num_kv_heads": 1, "head_size": 64, "dtype": torch.bfloat16}


def mla(direct):
    layer = MLAAttention.__new__(MLAAttention)
    torch.nn.Module.__init__(layer)
    layer.use_direct_call = direct
    return layer


def test_layers_that_wait_for_their_kv_are_taken():
    refusals.refuse_layers({"a": attention(), "b": mla(False), "other": object()}, ["a", "b"])


class OwnForward(Attention):
    def forward(self, *given):
        """One that may read its cache without vLLM's hook."""


@pytest.mark.parametrize("layer, words", [
    (DeepseekV32IndexerCache.__new__(DeepseekV32IndexerCache),
     "layer a is a DeepseekV32IndexerCache, for which vLLM waits for no KV"),
    (OwnForward.__new__(OwnForward), "layer a is a OwnForward"),
    (mla(True), "vLLM calls MLA directly"),
    (None, "layer a is a NoneType"),
])
def test_layers_that_wait_for_nothing_are_refused(layer, words):
    with pytest.raises(ConfigurationError, match=words):
        refusals.refuse_layers({"a": layer}, ["a"])


@pytest.mark.parametrize("spec", [
    HiddenStateCacheSpec(**SHAPE),
    UniformTypeKVCacheSpecs(16, {"a": MLAAttentionSpec(**SHAPE),
                                 "b": HiddenStateCacheSpec(**SHAPE)}),
])
def test_kinds_of_cache_that_are_derived_are_refused(spec):
    with pytest.raises(ConfigurationError, match="not 1 groups of HiddenStateCacheSpec"):
        refusals.one_full_group(KVCacheConfig(8, [], [KVCacheGroupSpec(["a", "b"], spec)]))
    assert refusals.one_full_group(
        KVCacheConfig(8, [], [KVCacheGroupSpec(["a"], MLAAttentionSpec(**SHAPE))])) == 16


@pytest.mark.parametrize("second, mixed, hashed, refused", [
    (True, True, 16, True), (True, False, 8, True),
    (True, False, 16, False), (False, True, 8, False)])
def test_blocks_written_before_saves_end(second, mixed, hashed, refused):
    """Only the second model runner does it, and only where it zeroes or copies new blocks."""
    plain = FullAttentionSpec(**SHAPE)
    wide = FullAttentionSpec(**{**SHAPE, "dtype": torch.float32})
    spec = UniformTypeKVCacheSpecs(16, {"a": plain, "b": wide}) if mixed else plain
    caches = KVCacheConfig(8, [], [KVCacheGroupSpec(["a", "b"], spec)], hash_block_size=hashed)
    config = SimpleNamespace(use_v2_model_runner=second)
    if refused:
        with pytest.raises(ConfigurationError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
            refusals.refuse_early_writes(config, caches, 16)
    else:
        refusals.refuse_early_writes(config, caches, 16)


@pytest.mark.parametrize("asynchronous, policy, loads, refused", [
    (True, "recompute", True, True), (True, "recompute", False, False),
    (True, "fail", True, False), (False, "recompute", True, False)])
def test_failures_told_while_the_next_step_is_under_way(asynchronous, policy, loads, refused):
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(async_scheduling=asynchronous),
        kv_transfer_config=SimpleNamespace(kv_load_failure_policy=policy, is_kv_consumer=loads))
    if refused:
        with pytest.raises(ConfigurationError, match="--no-async-scheduling"):
            refusals.refuse_late_recompute(config)
    else:
        refusals.refuse_late_recompute(config)
