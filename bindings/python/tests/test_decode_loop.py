"""The decode loop of bench/decode, small: every mode decodes the same from right bytes, hints bring
pages before they are asked for, and the picks are written as the replay reads them."""

import importlib
import io
import json
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
FOLDER = Path(__file__).resolve().parents[3] / "bench" / "decode"
STEPS, PICKS = 6, 4


@pytest.fixture(scope="module")
def loop():
    if not FOLDER.is_dir():
        pytest.skip(f"there is no {FOLDER}")
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("loop")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("loop", "model"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def prompt(loop):
    shape = importlib.import_module("model").Shape(
        layers=3, hidden=64, heads=4, kv_heads=2, head=16, intermediate=96, vocabulary=64,
        page_tokens=32)
    return loop.Prompt(shape, 640, PICKS, seed=3)


def test_modes_decode_the_same(loop, prompt, tmp_path):
    path = str(tmp_path / "store")
    prompt.store(path)
    truth = loop.run(prompt, path, "memory", STEPS, 16 << 20)
    assert len(truth["tokens"]) == STEPS and truth["wrong"] == 0
    reads = STEPS * 3 * PICKS
    for mode in ("off", "layer", "query", "oracle"):
        row = loop.run(prompt, path, mode, STEPS, 16 << 20, truth["picks"])
        assert row["wrong"] == 0 and row["tokens"] == truth["tokens"]
        assert row["from_memory"] + row["from_device"] == reads
        issued = sum(row["prefetch"]["issuedByPredictor"].values())
        if mode == "off":
            assert issued == 0
        if mode == "oracle":
            assert issued > 0 and row["prefetch"]["issuedByPredictor"]["pages"] > 0


def test_a_wrong_page_is_seen(loop, prompt):
    """The comparison that every mode goes through can fail."""
    class Damaged(loop.Memory):
        def read(self, layer, pages, into):
            super().read(layer, pages, into)
            into[1, 5] += 1

    row = loop.decode(prompt, Damaged(prompt), "memory", 2)
    assert row["wrong"] == 2 * 3


def test_pages_that_score_best(loop, prompt):
    """Bounds never rank a page below what one of its keys really reaches."""
    bounds = prompt.bounds[1]
    query = np.random.default_rng(1).standard_normal((4, 16)).astype(np.float32)
    best = bounds.best(query, PICKS)
    assert len(best) == PICKS and 0 not in best and list(best) == sorted(set(best))
    keys = prompt.blocks[:, 1].reshape(prompt.pages, 2, 32, 2, 16)[:, 0].astype(np.float32)
    for page in range(1, prompt.pages):
        reached = sum((keys[page, :, head // 2] @ query[head]).max() for head in range(4))
        bound = sum(
            bounds.high[page, head // 2] @ np.maximum(query[head], 0)
            + bounds.low[page, head // 2] @ np.minimum(query[head], 0) for head in range(4))
        assert reached <= bound + 1e-3


def test_picks_as_lines(loop):
    file = io.StringIO()
    loop.write_picks(file, [[np.array([1, 4]), np.array([2, 3])], [np.array([1, 5])] * 2])
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert lines[0] == {"s": 0, "l": 0, "p": [1, 4]} and len(lines) == 4
    assert loop.overlaps([[np.array([1, 4]), np.array([2, 4])], [np.array([1, 5])] * 2]) == (
        0.25, 0.75)
