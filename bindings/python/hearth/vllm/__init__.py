"""Hearth inside vLLM, loaded from vLLM's configuration alone.

`HearthTier` is a secondary tier of vLLM's own offloading (`TieringOffloadingSpec`),
`HearthConnector` a KV connector for engines without that tier. docs/vllm.md has the configuration
lines.

Each is imported when it is first asked for: the scheduler of an engine that uses one must not pay
for the other, and `import hearth.vllm` works where vLLM is not installed.
"""

from typing import Any

__all__ = ["HearthConnector", "HearthTier"]


def __getattr__(name: str) -> Any:
    if name == "HearthTier":
        from hearth.vllm.tier import HearthTier

        return HearthTier
    if name == "HearthConnector":
        from hearth.vllm.connector import HearthConnector

        return HearthConnector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
