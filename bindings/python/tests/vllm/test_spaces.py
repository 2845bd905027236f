"""What namespaces are made of: what changes KV bytes changes the namespace of both adapters, and
weights that cannot be told from others are refused without a salt."""

import json
import os
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", exc_type=ImportError)
pytest.importorskip("hearth._hearth", exc_type=ImportError)

import torch
from rig import SMALL_STORE
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    KVCacheTensor,
)

from hearth.vllm import spaces, weights
from hearth.vllm.options import ConfigurationError

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512,
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16", "rope_theta": 10000.0,
}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "model.safetensors").write_bytes(b"1" * 100)
    return folder


def configured(model, transfer=None, **changes):
    return EngineArgs(model=str(model), skip_tokenizer_init=True, enforce_eager=True,
                      kv_transfer_config=transfer, **changes).create_engine_config()


def caches(dtype=torch.bfloat16):
    names = [f"model.layers.{index}.self_attn.attn" for index in range(2)]
    spec = FullAttentionSpec(block_size=128, num_kv_heads=2, head_size=32, dtype=dtype)
    page = spec.page_size_bytes
    return KVCacheConfig(8, [KVCacheTensor(8 * 2 * page, names, page, 2 * page)],
                         [KVCacheGroupSpec(names, spec)])


def of_tier(model, store, monkeypatch, salt="", kept=None, **changes):
    """The fields of a tier that vLLM's own connector builds, with scheduler, spec and manager."""
    from hearth.vllm import tier

    found = []

    def record(*given):
        found.append(spaces.of_tier(*given))
        return found[-1]

    monkeypatch.setattr(tier, "spaces", SimpleNamespace(of_tier=record))
    transfer = KVTransferConfig(
        kv_connector="OffloadingConnector", kv_role="kv_both", kv_connector_extra_config={
            "spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": 1 << 20,
            "secondary_tiers": [{"type": "HearthTier", "module_path": "hearth.vllm",
                                 "path": str(store), "salt": salt, **SMALL_STORE}]})
    config = configured(model, transfer, **changes)
    connector = KVConnectorFactory.create_connector(
        config, KVConnectorRole.SCHEDULER, kept or caches())
    connector.shutdown()
    assert len(found) == 1
    return found[0]


CHANGES = [
    {"hf_overrides": {"rope_theta": 20000.0}},
    {"dtype": "float16"},
    {"quantization": "fp8"},
]


@pytest.mark.parametrize("change", CHANGES, ids=[next(iter(one)) for one in CHANGES])
def test_what_changes_bytes_changes_both_namespaces(change, model):
    before = spaces.of_engine("X", configured(model), "")
    assert before == spaces.of_engine("X", configured(model), "")  # the same after a restart
    assert before != spaces.of_engine("X", configured(model, **change), "")


def test_the_tier_finds_the_engines_whole_configuration(model, store_path, monkeypatch):
    """Built by vLLM's own connector: quantization, overrides, shapes and weights are fields."""
    first = of_tier(model, store_path, monkeypatch)
    assert first == of_tier(model, store_path, monkeypatch)
    assert first["weights"].startswith("files:")
    assert first | {"config": ""} == of_tier(
        model, store_path, monkeypatch, hf_overrides={"rope_theta": 20000.0}) | {"config": ""}
    assert first != of_tier(model, store_path, monkeypatch, hf_overrides={"rope_theta": 20000.0})
    halves = of_tier(model, store_path, monkeypatch, kept=caches(torch.float16))
    assert halves["shapes"] != first["shapes"]
    (model / "model.safetensors").write_bytes(b"2" * 101)
    assert of_tier(model, store_path, monkeypatch)["weights"] != first["weights"]


@pytest.mark.parametrize("change, words", [
    ({"load_format": "dummy"}, "load_format dummy reads no files"),
    ({"enable_lora": True}, "known by name and path only"),
    ({"weights": None}, "holds no weights"),
])
def test_weights_that_cannot_be_told_need_a_salt(change, words, model, store_path, monkeypatch):
    change = dict(change)
    if "weights" in change:
        del change["weights"]
        os.unlink(model / "model.safetensors")  # as where they are streamed from elsewhere
    with pytest.raises(ConfigurationError, match=words + ".*Set 'salt'"):
        spaces.of_engine("X", configured(model, **change), "")
    with pytest.raises(ConfigurationError, match=words):
        of_tier(model, store_path, monkeypatch, **change)
    assert of_tier(model, store_path, monkeypatch, salt="mine", **change)["salt"] == "mine"


def test_a_tier_is_refused_where_weights_change_while_it_runs(model, store_path, monkeypatch):
    with pytest.raises(ConfigurationError, match="tells no tier of it"):
        of_tier(model, store_path, monkeypatch, salt="mine",
                weight_transfer_config={"backend": "nccl"})


def test_a_tier_without_the_configuration_needs_a_salt(store_path):
    from rig import Rig, hearth_tier

    with pytest.raises(ConfigurationError, match="does not say with which weights.*Set 'salt'"):
        Rig([hearth_tier(store_path, salt="")])
    Rig([hearth_tier(store_path, salt="mine")]).close()


def test_commits_of_the_hub(tmp_path, monkeypatch):
    """By revision, in the cache from which the weights come."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home"))
    for cache, commits in (("home", {"main": "a" * 40, "v2": "b" * 40}),
                           ("elsewhere", {"main": "c" * 40})):
        refs = tmp_path / cache / "models--org--name" / "refs"
        refs.mkdir(parents=True)
        for name, commit in commits.items():
            (refs / name).write_text(commit)

    def load(download_dir=None, load_format="auto"):
        return SimpleNamespace(load_format=load_format, download_dir=download_dir)

    def name(revision=None, model="org/name", where=None, model_weights=""):
        config = SimpleNamespace(model=model, revision=revision, model_weights=model_weights)
        return weights.identify(config, load(where))

    assert name() == ("commit:" + "a" * 40, "")
    assert name("v2") == ("commit:" + "b" * 40, "")
    assert name("d" * 40) == ("commit:" + "d" * 40, "")
    assert name(where=str(tmp_path / "elsewhere")) == ("commit:" + "c" * 40, "")
    assert "not in the hub's cache" in name("v3")[1]
    assert "not in the hub's cache" in name(model="org/other")[1]
    assert "not on this machine" in name(model=str(tmp_path), model_weights="s3://a/b")[1]
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "1")
    assert "ModelScope" in name()[1]
