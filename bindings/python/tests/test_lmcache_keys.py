"""Keys of LMCache as text, taken apart by the extension: what a pattern and struct make of them, of
keys that were changed at random as well. The tests of hearth.lmcache compare with its own code."""

import random
import re
import struct

import pytest

from hearth._hearth import _lmcache_keys

PATTERN = re.compile(
    r"([^@]*)@([0-9a-fA-F]{1,16})@([0-9a-fA-F]{1,8})@((?:[0-9a-fA-F]{2})+)(?:@([^@]*))?", re.DOTALL)


def taken_apart(text):
    """(model, world size, key), or None."""
    found = PATTERN.fullmatch(text)
    if not found:
        return None
    model, rank, group, digest, salt = found.groups()
    try:
        salt = (salt or "").encode()
        model.encode()
    except UnicodeEncodeError:
        return None
    key = struct.pack(">BQIH", 1, int(rank, 16), int(group, 16), len(salt) & 0xffff) + salt
    key += bytes.fromhex(digest)
    return (model, int(rank, 16) >> 24 & 0xff, key) if len(key) <= 512 else None


def changed(text, chance):
    letters = list(text)
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(letters) + 1)
        match chance.randrange(3):
            case 0:
                letters.insert(place, chance.choice("@0fFg \0x_-\u00e4\ud800\U0001f525"))
            case 1:
                del letters[place:place + chance.randrange(1, 8)]
            case _:
                letters[place:place] = letters[:chance.randrange(1, 200)]
    return "".join(letters)


def test_changed_keys():
    chance = random.Random(1)
    good = 0
    for _ in range(20_000):
        text = changed(
            f"org/model@{chance.randrange(1 << 40):08x}@{chance.randrange(9):x}@"
            f"{chance.randbytes(chance.choice((1, 16, 32, 240))).hex()}"
            + chance.choice(("", "", "@", "@salt")), chance)
        expected = taken_apart(text)
        good += expected is not None
        assert _lmcache_keys([text]) == (
            None if expected is None else (*expected[:2], [expected[2]])), ascii(text)
    assert 2_000 < good < 18_000


def test_batches():
    texts = [f"m@{number << 20:08x}@1@{number:064x}" for number in range(40)]
    parts = [taken_apart(text) for text in texts]
    # The world size is in the rank: 16 of these are of one.
    assert _lmcache_keys(tuple(texts[:16])) == ("m", 0, [key for *_, key in parts[:16]])
    assert _lmcache_keys(texts) is None and _lmcache_keys([*texts[:16], "n@0@0@00"]) is None
    assert _lmcache_keys(iter(texts[16:32])) == ("m", 1, [key for *_, key in parts[16:32]])
    assert _lmcache_keys([]) is None and _lmcache_keys([b"m@0@0@00"]) is None
    for wrong in (texts[0], 7, None):
        with pytest.raises(TypeError):
            _lmcache_keys(wrong)
