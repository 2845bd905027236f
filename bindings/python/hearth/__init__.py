"""Hearth from Python: the NVMe tier for LLM KV caches. The interface is described in __init__.pyi
and docs/python.md; the work is done by the extension, hearth._hearth."""

import atexit as _atexit
import json as _json
import os as _os

from hearth import _aio, _hearth
from hearth._hearth import Namespace, Queue, Region, Store, version
from hearth._types import (
    Buffer,
    ClosedError,
    Durability,
    Entry,
    Error,
    Fields,
    ForkedError,
    FormatError,
    LockedError,
    Mode,
    Result,
)

__all__ = [
    "Buffer", "ClosedError", "Durability", "Entry", "Error", "Fields", "ForkedError",
    "FormatError", "LockedError", "Mode", "Namespace", "Queue", "Region", "Result", "Store",
    "open", "version",
]


def _endpoint(path):
    if isinstance(path, str) and path.startswith(("dir:", "unix:")):
        return path
    paths = [path] if isinstance(path, (str, _os.PathLike)) else list(path)
    paths = [_os.path.abspath(_os.fspath(one)) for one in paths]
    for one in paths:
        if "," in one:
            raise ValueError(f"path {one!r}: a directory of a store has no comma in its name")
    if not paths:
        raise ValueError("path: a store needs a directory")
    return "dir:" + ",".join(paths)


def open(path, **options):
    """Opens a store in a directory (or one a device), or an endpoint ("dir:/path"). Options are
    those of hearth_open in hearth.h: capacity="10GiB" or bytes, memory, staging,
    mode="cache"|"store" ...; None values are left out, True and False are 1 and 0."""
    endpoint = _endpoint(path)
    words = []
    for name, value in options.items():
        if value is None:
            continue
        word = f"{name}={int(value) if isinstance(value, bool) else value}"
        if "\0" in word:
            raise ValueError(f"option {name!r} holds a NUL character")
        words.append(word)
    if "\0" in endpoint:
        raise ValueError("path holds a NUL character")
    store = _hearth._open(endpoint, tuple(words))
    store._lanes = _aio.Lanes()
    return store


def _statistics(self):
    """What the store counts and measures."""
    return _json.loads(self._statistics(0))


def _prometheus(self):
    """The same, in Prometheus' text format."""
    return self._statistics(1)


def _list(self):
    """Every block; reads from the device as it goes."""
    cursor = 0
    while True:
        cursor, entries = self._list_part(cursor)
        yield from entries
        if cursor == 0:
            return


def _add(owner, **functions):
    """Methods that are better said in Python than in C."""
    for name, function in functions.items():
        function.__name__ = name
        function.__qualname__ = f"{owner.__name__}.{name}"
        function.__module__ = "hearth"
        setattr(owner, name, function)


_add(Store, statistics=_statistics, prometheus=_prometheus)
_add(Namespace, list=_list, aget=_aio.aget, aput=_aio.aput, adelete=_aio.adelete)

# Stores left open are closed while the interpreter still works. Importing this opens nothing.
_atexit.register(_hearth._close_all)
