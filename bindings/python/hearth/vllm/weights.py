"""Which weights a model was loaded with, as a name that no other weights have; or that it cannot be
told, and why.

Known are directories and files (by their files' names, sizes and times) and commits of the hub.
What a store keeps outlives the engine, so a name alone is not enough: other weights may have it
tomorrow.
"""

import hashlib
import json
import os
import re
from typing import Any, Optional

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
# How vLLM reads weights from files that can be looked at. Others make them up, or get them from
# somewhere else.
FROM_FILES = frozenset({
    "auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "pt", "npcache", "mistral",
    "gguf", "bitsandbytes", "sharded_state", "runai_streamer", "runai_streamer_sharded",
})
COMMIT = re.compile(r"[0-9a-f]{40}")


def digest(value: Any) -> str:
    """A short stable hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def identify(model: Any, load: Any) -> tuple[str, str]:
    """The name of the weights of a model's configuration, and why they are not known; one of them
    is empty or "unknown"."""
    from vllm import envs

    kind = str(load.load_format)
    problem = ""
    name: Optional[str] = None
    if kind not in FROM_FILES:
        problem = f"load_format {kind} reads no files that could be compared"
    elif getattr(model, "model_weights", ""):
        problem = f"the weights of {model.model_weights} are not on this machine"
    elif os.path.exists(model.model):
        name = of_path(model.model)
        problem = "" if name else f"{model.model} holds no weights ({', '.join(SUFFIXES)})"
    elif envs.VLLM_USE_MODELSCOPE:
        problem = f"{model.model} comes from ModelScope; give its directory"
    else:
        name = of_hub(model.model, model.revision, load.download_dir)
        problem = "" if name else (
            f"the commit of {model.model} is not in the hub's cache; give --revision a commit, or "
            "the model's directory")
    return name or "unknown", problem


def of_path(model: str) -> Optional[str]:
    """Of a directory: its files' names, sizes and times, and what its configuration says. One that
    was copied or touched counts as another: only a cold start."""
    if os.path.isdir(model):
        files: list[Any] = []
        found = False
        for name in sorted(os.listdir(model)):
            path = os.path.join(model, name)
            if name.endswith(SUFFIXES):
                status = os.stat(path)
                files.append((name, status.st_size, status.st_mtime_ns))
                found = True
            elif name.endswith(".json") and ("config" in name or name == "params.json"):
                with open(path, "rb") as file:
                    files.append((name, hashlib.sha256(file.read()).hexdigest()))
        return "files:" + digest(files) if found else None
    if os.path.isfile(model):
        status = os.stat(model)
        return "file:" + digest((status.st_size, status.st_mtime_ns))
    return None


def of_hub(model: str, revision: Optional[str], cache: Optional[str]) -> Optional[str]:
    """The commit of a model of the hub: the revision itself, or the one that its branch or tag
    stands for in the cache from which the weights are read."""
    if revision is not None and COMMIT.fullmatch(revision):
        return "commit:" + revision
    try:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name
    except ImportError:
        return None
    folder = repo_folder_name(repo_id=model, repo_type="model")
    try:
        with open(os.path.join(cache or constants.HF_HUB_CACHE, folder, "refs",
                               revision or "main"), encoding="ascii") as file:
            commit = file.read().strip()
    except (OSError, ValueError):
        return None
    return "commit:" + commit if COMMIT.fullmatch(commit) else None
