"""A Llama-shaped decoder with random weights, in numpy, whose attention picks pages.

RMS norms, rotary positions, grouped queries, SwiGLU; weights from a seed. Prompts are taken in by
whole attention. Decoding attends, in each layer, to the pages that score best against the query,
and to what always stays in memory (the first page, and the tokens since the prompt). A page's
score is the highest that any of its keys could reach: per channel the larger of query times the
page's lowest and query times its highest value, summed over channels and heads (page bounds as in
Quest, Tang et al. 2024, https://arxiv.org/abs/2406.10774). Keys and values are kept as float16.

Random weights pick other pages than trained ones: nothing here proves a hit rate.
"""

from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    layers: int = 8
    hidden: int = 512
    heads: int = 8
    kv_heads: int = 2
    head: int = 64
    intermediate: int = 1408
    vocabulary: int = 2048
    page_tokens: int = 32

    @property
    def page_values(self):
        """float16 values of a page in one layer: keys, then values."""
        return 2 * self.page_tokens * self.kv_heads * self.head


def norm(x):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def rotated(x, positions):
    """Rotary positions over the last axis of x[token, head, channel]."""
    half = x.shape[-1] // 2
    angles = positions[:, None] / 10_000 ** (np.arange(half) / half)
    cosine, sine = (f(angles)[:, None, :].astype(np.float32) for f in (np.cos, np.sin))
    one, other = x[..., :half], x[..., half:]
    return np.concatenate((one * cosine - other * sine, other * cosine + one * sine), axis=-1)


class Layer(NamedTuple):
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    gate: np.ndarray
    up: np.ndarray
    down: np.ndarray


class Model:
    def __init__(self, shape, seed=0):
        self.shape = shape
        random = np.random.default_rng(seed)

        def weights(rows, columns):
            return (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

        width, kv_width = shape.heads * shape.head, shape.kv_heads * shape.head
        self.embedding = random.standard_normal((shape.vocabulary, shape.hidden)).astype(np.float32)
        self.layers = [
            Layer(weights(shape.hidden, width), weights(shape.hidden, kv_width),
                  weights(shape.hidden, kv_width), weights(width, shape.hidden),
                  weights(shape.hidden, shape.intermediate),
                  weights(shape.hidden, shape.intermediate),
                  weights(shape.intermediate, shape.hidden))
            for _ in range(shape.layers)]

    # Parts of a layer; x is [token, hidden]

    def queries(self, layer, x, positions):
        """[token, head, channel], of the input of that layer or of an earlier one."""
        split = (norm(x) @ self.layers[layer].query).reshape(
            len(x), self.shape.heads, self.shape.head)
        return rotated(split, positions)

    def keys_values(self, layer, x, positions):
        split = (len(x), self.shape.kv_heads, self.shape.head)
        normal, weights = norm(x), self.layers[layer]
        keys = rotated((normal @ weights.key).reshape(split), positions)
        return keys.astype(np.float16), (normal @ weights.value).reshape(split).astype(np.float16)

    def finished(self, layer, x, attended):
        """The layer's output, from what its heads attended to."""
        weights = self.layers[layer]
        x = x + attended.reshape(len(x), -1) @ weights.output
        normal = norm(x)
        gate = normal @ weights.gate
        return x + (gate / (1 + np.exp(-gate)) * (normal @ weights.up)) @ weights.down

    def token(self, x):
        return int(np.argmax(norm(x[-1]) @ self.embedding.T))

    def attend(self, queries, keys, values, mask=None):
        """Heads over keys[token, kv head, channel]; a mask is added to the scores."""
        group = self.shape.heads // self.shape.kv_heads
        out = np.empty_like(queries)
        for head in range(self.shape.heads):
            one = keys[:, head // group].astype(np.float32)
            scores = queries[:, head] @ one.T / np.sqrt(self.shape.head)
            scores = softmax(scores if mask is None else scores + mask)
            out[:, head] = scores @ values[:, head // group].astype(np.float32)
        return out

    def prefill(self, tokens, chunk=256):
        """The prompt's keys and values, [layer] of [token, kv head, channel], and what the last
        token left behind."""
        x = self.embedding[tokens]
        positions = np.arange(len(tokens))
        kept = []
        for layer in range(self.shape.layers):
            keys, values = self.keys_values(layer, x, positions)
            kept.append((keys, values))
            parts = []
            for start in range(0, len(tokens), chunk):
                here = slice(start, min(start + chunk, len(tokens)))
                mask = np.where(positions[None, :here.stop] <= positions[here, None], 0, -np.inf)
                attended = self.attend(
                    self.queries(layer, x[here], positions[here]), keys[:here.stop],
                    values[:here.stop], mask.astype(np.float32))
                parts.append(self.finished(layer, x[here], attended))
            x = np.concatenate(parts)
        return kept, x[-1:]


class Bounds:
    """Lowest and highest value of each channel of each page's keys in one layer."""

    def __init__(self, keys, shape):
        paged = keys.astype(np.float32).reshape(
            -1, shape.page_tokens, shape.kv_heads, shape.head)
        self.low, self.high = paged.min(axis=1), paged.max(axis=1)
        self.group = shape.heads // shape.kv_heads

    def best(self, query, count):
        """The pages that score best against query[head, channel], the first page left out,
        in order of their numbers."""
        scores = np.zeros(len(self.low), np.float32)
        for head, channels in enumerate(query):
            kv_head = head // self.group
            scores += self.high[:, kv_head] @ np.maximum(channels, 0)
            scores += self.low[:, kv_head] @ np.minimum(channels, 0)
        scores[0] = -np.inf
        return np.sort(np.argpartition(-scores, count)[:count])
