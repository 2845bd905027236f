"""Hearth as an L2 tier of LMCache, by configuration alone (docs/lmcache.md):

    {"type": "plugin", "module_path": "hearth.lmcache", "class_name": "HearthL2Adapter",
     "adapter_params": {"path": "/mnt/nvme0/hearth", "capacity": "200GiB"}}
    {"type": "native_plugin", "module_path": "hearth.lmcache", "class_name": "HearthNativeClient",
     "adapter_params": {"path": "/mnt/nvme0/hearth", "capacity": "200GiB",
                        "namespace": {"dtype": "bfloat16"}}}

The first is the better one: LMCache's memory is registered with it, it holds LMCache's locks, and
it is told what an object's bytes mean.
"""

from .native import HearthNativeClient
from .parameters import ConfigurationError

__all__ = ["ConfigurationError", "HearthL2Adapter", "HearthNativeClient"]


def __getattr__(name):
    # The adapter's base class is LMCache's; the client needs nothing of LMCache.
    if name == "HearthL2Adapter":
        from .adapter import HearthL2Adapter

        return HearthL2Adapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
