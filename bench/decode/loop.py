"""Decoding with the KV cache in Hearth: the loop, its modes, and what it measures.

A page of the prompt is a block, keyed by its number, with a shard a layer. In each layer of each
step the pages that attention picks are read; what the loop waits for them is its stall. The modes:

    memory  the pages are in the process: what copying them alone takes
    off     no prefetching: the DRAM tier keeps what was read
    layer   the store guesses from the picks of the layer before; it is told of the progress alone
    query   as the layer before begins, its input goes through the next layer's query already, and
            the pages that score best against that are hinted
    oracle  the pages that will be picked are hinted, a layer ahead

All modes decode the same tokens from the same bytes: each page read is compared with what was
stored, outside of the time measured.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

import hearth

sys.path.insert(0, str(Path(__file__).resolve().parent))

from model import Bounds, Model  # noqa: E402

MODES = ("memory", "off", "layer", "query", "oracle")
# A hint of pages is a matter of `layer`, which guesses, too.
PREFETCH = {"off": "off", "layer": "layer", "query": "layer", "oracle": "layer"}


class Prompt:
    """A prompt that was taken in: its pages, their bounds, and what decoding begins with."""

    def __init__(self, shape, tokens, picks, seed=0):
        pages = tokens // shape.page_tokens
        if pages < picks + 2:
            raise SystemExit(f"{tokens} tokens are {pages} pages; {picks} picks need {picks + 2}")
        self.shape, self.picks, self.pages = shape, picks, pages
        self.model = Model(shape, seed)
        numbers = np.random.default_rng(seed + 1).integers(
            0, shape.vocabulary, pages * shape.page_tokens)
        kept, self.last = self.model.prefill(numbers)
        self.bounds = [Bounds(keys, shape) for keys, _ in kept]
        # [page, layer, value]: a block is what lies one after the other.
        split = (pages, shape.page_tokens, shape.kv_heads, shape.head)
        self.blocks = np.stack(
            [np.concatenate((keys.reshape(pages, -1), values.reshape(pages, -1)), axis=1)
             for keys, values in (
                 (k.reshape(split), v.reshape(split)) for k, v in kept)], axis=1)
        self.length = pages * shape.page_tokens

    @property
    def shard_bytes(self):
        return self.shape.page_values * 2

    def keys(self):
        return [b"page/%d" % page for page in range(self.pages)]

    def store(self, path, segments=12):
        """Writes the prompt's pages to a new store there."""
        with hearth.open(path, **self.options(path, segments)) as store:
            space = self.space(store)
            results = space.put(
                self.keys(), [block.tobytes() for block in self.blocks],
                shard_lengths=[self.shard_bytes] * self.shape.layers)
            assert all(one.status == "stored" for one in results), results[0]
            store.flush()

    def options(self, path, segments=12):
        block = 1 << max(17, (self.shard_bytes * self.shape.layers - 1).bit_length())
        segment = max(32 << 20, 40 * block)
        wanted = self.blocks.nbytes * 5 // 4 + (segments - 4) * segment
        return {"capacity": max(wanted, segments * segment), "max_block": block,
                "segment": segment}

    def space(self, store):
        return store.namespace(
            {"engine": "decode", "layers": str(self.shape.layers)}, layout="aligned")


class Memory:
    """The mode without a store."""

    def __init__(self, prompt):
        self.blocks = prompt.blocks

    def progress(self, step, layer):
        pass

    def hint(self, step, layer, pages):
        pass

    def read(self, layer, pages, into):
        np.take(self.blocks[:, layer], pages, axis=0, out=into)

    def close(self):
        return {}


class Stored:
    """Pages in a store that was opened anew, so that its DRAM tier is empty."""

    def __init__(self, prompt, path, mode, dram):
        self.store = hearth.open(
            path, **prompt.options(path), memory=dram + (192 << 20), staging=dram,
            prefetch=PREFETCH[mode])
        self.store.wait_recovered()
        self.space = prompt.space(self.store)
        self.keys = prompt.keys()
        self.shard = prompt.shard_bytes

    def progress(self, step, layer):
        self.store.hint("progress", request=1, step=step, layer=layer)

    def hint(self, step, layer, pages):
        self.store.hint(
            "pages", space=self.space, keys=[self.keys[page] for page in pages], request=1,
            step=step, layer=layer, first=layer, number=1)

    def read(self, layer, pages, into):
        rows = memoryview(into).cast("B")
        results = self.space.get(
            [self.keys[page] for page in pages],
            [rows[place * self.shard:(place + 1) * self.shard] for place in range(len(pages))],
            shards=(layer, 1), mode="cached")
        for one in results:
            if one.status != "hit":
                raise SystemExit(f"a page is a {one.status} ({one.reason})")

    def close(self):
        told = self.store.statistics()
        self.space.close()
        self.store.close()
        return told


def decode(prompt, source, mode, steps, truth=None):
    """Decodes; returns tokens, picks by step and layer, seconds of stall by step, seconds in all,
    and the number of pages that were not what was stored."""
    shape, model = prompt.shape, prompt.model
    # A page for each pick, at an address that devices like.
    room = np.zeros(prompt.picks * shape.page_values + 2048, np.float16)
    start = -(room.ctypes.data // 2) % 2048
    pages = room[start:start + prompt.picks * shape.page_values].reshape(prompt.picks, -1)
    first = [prompt.blocks[0, layer].copy() for layer in range(shape.layers)]
    since = [([], []) for _ in range(shape.layers)]
    tokens, picked, stalls, wrong = [], [], [], 0
    compared = 0.0
    token = model.token(prompt.last)
    began = time.perf_counter()
    for step in range(steps):
        tokens.append(token)
        position = np.array([prompt.length + step])
        x = model.embedding[[token]]
        stall, here = 0.0, []
        for layer in range(shape.layers):
            source.progress(step, layer)
            if mode == "query" and layer + 1 < shape.layers:
                early = model.queries(layer + 1, x, position)[0]
                source.hint(step, layer + 1, prompt.bounds[layer + 1].best(early, prompt.picks))
            elif mode == "oracle":
                place = step * shape.layers + layer + 1
                if place < steps * shape.layers:
                    at = divmod(place, shape.layers)
                    source.hint(*at, truth[at[0]][at[1]])
            query = model.queries(layer, x, position)
            keys, values = model.keys_values(layer, x, position)
            since[layer][0].append(keys)
            since[layer][1].append(values)
            picks = prompt.bounds[layer].best(query[0], prompt.picks)
            here.append(picks)
            asked = time.perf_counter()
            source.read(layer, picks, pages)
            got = time.perf_counter()
            stall += got - asked
            wrong += int((pages != prompt.blocks[picks, layer]).any(axis=1).sum())
            compared += time.perf_counter() - got
            x = model.finished(layer, x, attended(prompt, query, first[layer], pages, since[layer]))
        picked.append(here)
        stalls.append(stall)
        token = model.token(x)
    return {"tokens": tokens, "picks": picked, "stalls": stalls, "wrong": wrong,
            "seconds": time.perf_counter() - began - compared}


def attended(prompt, query, first, pages, since):
    shape = prompt.shape
    halves = np.concatenate((first[None], pages)).reshape(
        len(pages) + 1, 2, shape.page_tokens, shape.kv_heads, shape.head)
    keys, values = (halves[:, half].reshape(-1, shape.kv_heads, shape.head) for half in (0, 1))
    return prompt.model.attend(
        query, np.concatenate((keys, *since[0])), np.concatenate((values, *since[1])))


def run(prompt, path, mode, steps, dram, truth=None):
    """One run of a mode: a row for the report."""
    source = Memory(prompt) if mode == "memory" else Stored(prompt, path, mode, dram)
    try:
        row = decode(prompt, source, mode, steps, truth)
    finally:
        told = source.close()
    row["mode"] = mode
    if told:
        row["prefetch"] = told["prefetch"]
        row["from_memory"] = told["gets"]["hitsStaging"]
        row["from_device"] = told["gets"]["hitsDevice"]
    return row


def write_picks(file, picks):
    """The picks as `hearth-bench replay --decode` reads them."""
    for step, layers in enumerate(picks):
        for layer, pages in enumerate(layers):
            file.write(json.dumps(
                {"s": step, "l": layer, "p": [int(page) for page in pages]},
                separators=(",", ":")) + "\n")


def overlaps(picks):
    """Mean shares of a layer's picks that were picked there in the step before, and in the layer
    before in the same step."""
    steps, layers = [], []
    for step, here in enumerate(picks):
        for layer, pages in enumerate(here):
            if step:
                steps.append(len(np.intersect1d(pages, picks[step - 1][layer])) / len(pages))
            if layer:
                layers.append(len(np.intersect1d(pages, here[layer - 1])) / len(pages))
    return tuple(float(np.mean(one)) if one else 0.0 for one in (steps, layers))
