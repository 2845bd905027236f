"""LMCache's keys in Hearth's terms, both ways.

An ObjectKey names a chunk (its hash) and what the chunk is of: model, rank within a parallel
topology, object group, salt. Model and topology (the world size, which the rank carries in its
upper bits) choose the Hearth namespace, with the object's layout (layouts.py), which is no part of
an ObjectKey: they are what a block must match to mean the same, and what one would size or purge
alone. Rank, group, salt and hash are the key. They are not namespaces
of their own because there can be more of them than a store has namespaces (4,096): LMCache counts
on more than 10,000 salts. Hearth checks the full key and the namespace with the bytes of every
read, so it makes no difference to what can be returned: another rank, group or salt is another
key, and a miss.

The encoding is fixed (big-endian) and can be undone; both kinds of plug-in use it.

    1 byte  form, 1
    8 bytes kv_rank
    4 bytes object_group_id
    2 bytes length of the salt in bytes
            salt, UTF-8
            chunk hash
"""

import struct
from typing import NamedTuple

FORM = 1
KEY_LIMIT = 512
_HEAD = struct.Struct(">BQIH")
HEAD_BYTES = _HEAD.size  # of a key without a salt, before its hash
_NO_SALT = b""

Fields = tuple[tuple[str, str], ...]
# Model and world size; and with the layout, what names a namespace.
Family = tuple[str, int]
SpaceName = tuple[str, int, str]


class KeyRefused(ValueError):
    """A key that cannot be stored; the message says which part is the reason."""


class Parts(NamedTuple):
    """An ObjectKey's parts, for keys that came as text."""

    chunk_hash: bytes
    model_name: str
    kv_rank: int
    object_group_id: int = 0
    cache_salt: str = ""


def encode(key) -> bytes:
    """The Hearth key of an ObjectKey (or Parts)."""
    salt = key.cache_salt
    data = salt.encode("utf-8", "surrogatepass") if salt else _NO_SALT
    try:
        encoded = _HEAD.pack(FORM, key.kv_rank, key.object_group_id, len(data))
    except struct.error:
        raise KeyRefused(
            f"kv_rank {key.kv_rank} or object_group_id {key.object_group_id} is out of range: "
            "0 to 2^64 - 1 and 0 to 2^32 - 1") from None
    encoded += data + key.chunk_hash
    if len(encoded) > KEY_LIMIT:
        raise KeyRefused(
            f"a chunk hash of {len(key.chunk_hash)} bytes and a salt of {len(data)} make a key of "
            f"{len(encoded)} bytes; Hearth's keys have at most {KEY_LIMIT}")
    if not key.chunk_hash:
        raise KeyRefused("an empty chunk hash names no chunk")
    return encoded


def decode(encoded: bytes, model_name: str) -> Parts:
    """What `encode` made of it."""
    if len(encoded) <= _HEAD.size or encoded[0] != FORM:
        raise KeyRefused(f"not a key of LMCache in form {FORM}: {encoded[:32].hex()}")
    _, rank, group, length = _HEAD.unpack_from(encoded)
    end = _HEAD.size + length
    if end >= len(encoded):
        raise KeyRefused(f"a salt of {length} bytes in a key of {len(encoded)}")
    salt = encoded[_HEAD.size:end].decode("utf-8", "surrogatepass")
    return Parts(encoded[end:], model_name, rank, group, salt)


def parse(text: str) -> Parts:
    """The parts of a native connector's key, `model@rank@group@hash[@salt]`, numbers in hex."""
    parts = text.split("@")
    if len(parts) not in (4, 5):
        raise KeyRefused(f"not model@rank@group@hash[@salt]: {text[:120]!r}")
    try:
        return Parts(
            bytes.fromhex(parts[3]), parts[0], int(parts[1], 16), int(parts[2], 16),
            parts[4] if len(parts) == 5 else "")
    except ValueError:
        raise KeyRefused(f"rank, group or hash is not hexadecimal: {text[:120]!r}") from None


def encode_text(text: str) -> tuple[Family, bytes]:
    """The family and the Hearth key of a native connector's key; `parse`, `family` and `encode` in
    one, since a lookup of many keys is made of little else."""
    parts = text.split("@")
    if len(parts) == 4:
        try:
            rank = int(parts[1], 16)
            data = bytes.fromhex(parts[3])
            if data and len(data) <= KEY_LIMIT - _HEAD.size:
                head = _HEAD.pack(FORM, rank, int(parts[2], 16), 0)
                return (parts[0], (rank >> 24) & 0xFF), head + data
        except (ValueError, struct.error):
            pass  # told below, with its reason
    key = parse(text)
    return family(key), encode(key)


def family(key) -> Family:
    """What of a key chooses the namespace: model, and world size from the rank's upper bits."""
    return key.model_name, (key.kv_rank >> 24) & 0xFF


def space_fields(name: SpaceName, extra: Fields) -> Fields:
    """A namespace's fields; `extra` are those of the configuration."""
    model, world_size, layout = name
    return (
        ("engine", "lmcache"), ("form", str(FORM)), ("model", model),
        ("world_size", str(world_size)), ("layout", layout), *extra)
