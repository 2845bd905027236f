"""Where a block lies in the paged KV cache: a page of bytes in each layer.

vLLM places all layers in one allocation; a layer's page of a block is one run of bytes, at a
constant stride. Layers are put together into shards of at least `shard_bytes`, in the order in
which the model needs them: one shard is one read, and what a layer waits for.
"""

import contextlib
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hearth.vllm.options import ConfigurationError

WHERE = "HearthConnector"


@dataclass(frozen=True)
class Page:
    """One layer's pages: block b's bytes are at `address + b * stride`, `length` of them."""

    layer: str
    address: int
    stride: int
    length: int


class Pages:
    """The paged cache of one KV group, as bytes."""

    def __init__(self, caches: dict[str, torch.Tensor], layers: Sequence[str], blocks: int,
                 shard_bytes: int) -> None:
        self.layers: list[Page] = []
        self.tensors: list[torch.Tensor] = []
        shapes: list[Any] = []
        taken: set[int] = set()
        for layer in layers:
            tensor = caches.get(layer)
            if tensor is None:
                raise ConfigurationError(f"{WHERE}: vLLM registered no KV cache for layer {layer}")
            if tensor.data_ptr() in taken:
                continue  # a layer that uses another one's cache
            taken.add(tensor.data_ptr())
            self.layers.append(_page(layer, tensor, blocks))
            self.tensors.append(tensor)
            shapes.append((layer, list(tensor.shape[1:]), list(tensor.stride()[1:]),
                           str(tensor.dtype), tensor.shape[0] // blocks))
        self.shapes = shapes
        self.device = self.tensors[0].device
        # Shards are runs of layers: shard i is layers[starts[i]:starts[i + 1]].
        self.starts = [0]
        size = 0
        for index, page in enumerate(self.layers):
            if size >= shard_bytes:
                self.starts.append(index)
                size = 0
            size += page.length
        if len(self.starts) > 1 and size < shard_bytes // 2:
            self.starts.pop()  # a small rest goes with the last one
        self.starts.append(len(self.layers))
        self.shards = [self.layers[low:high]
                       for low, high in zip(self.starts, self.starts[1:])]
        self.lengths = [sum(page.length for page in shard) for shard in self.shards]
        self.block_bytes = sum(self.lengths)
        self.shard_of = {page.layer: index
                         for index, shard in enumerate(self.shards) for page in shard}
        storage = self.tensors[0].untyped_storage()
        self.base, self.span = storage.data_ptr(), storage.nbytes()
        for page in self.layers:
            if not self.base <= page.address <= self.base + self.span:
                self.base = self.span = 0  # several allocations: none is registered
                break


def _page(layer: str, tensor: torch.Tensor, blocks: int) -> Page:
    """A layer's pages; refuses layouts in which a page is not one run of bytes."""
    item = tensor.element_size()
    if tensor.dim() < 2 or tensor.shape[0] % blocks:
        raise ConfigurationError(
            f"{WHERE}: the KV cache of {layer} has shape {tuple(tensor.shape)}, not a row for each "
            f"of {blocks} blocks")
    ratio = tensor.shape[0] // blocks  # kernels may split a block into several
    inner = tensor[0]
    reach = 1 + sum((size - 1) * stride for size, stride in zip(inner.shape, inner.stride()))
    if reach != inner.numel() or (ratio > 1 and tensor.stride(0) != inner.numel()):
        raise ConfigurationError(
            f"{WHERE}: the KV cache layout scatters a block of {layer} over memory (strides "
            f"{tensor.stride()}); set VLLM_KV_CACHE_LAYOUT to one with whole blocks, such as LBHNC")
    return Page(layer, tensor.data_ptr(), tensor.stride(0) * item * ratio,
                inner.numel() * item * ratio)


class _AlignedZeros(TorchFunctionMode):
    """Within it, large zeroed CPU allocations begin at a page: so that a device can write into the
    cache directly, where torch aligns to 64 bytes only."""

    LEAST = 1 << 20

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.zeros and len(args) == 1 and isinstance(args[0], int):
            device = torch.device(kwargs.get("device") or "cpu")
            dtype = kwargs.get("dtype")
            if (device.type == "cpu" and dtype == torch.int8 and args[0] >= self.LEAST
                    and set(kwargs) <= {"dtype", "device"}):
                memory = mmap.mmap(-1, args[0], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                if hasattr(mmap, "MADV_HUGEPAGE"):
                    with contextlib.suppress(OSError):
                        memory.madvise(mmap.MADV_HUGEPAGE)
                return torch.frombuffer(memory, dtype=torch.int8)  # keeps the mapping
        return func(*args, **kwargs)


@contextlib.contextmanager
def aligned_allocation() -> Iterator[None]:
    """What vLLM allocates its KV cache in, on CPUs."""
    with _AlignedZeros():
        yield
