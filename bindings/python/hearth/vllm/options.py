"""The configuration of both adapters: checked names, the store's options, and the store itself.

What an adapter does not know itself is an option of `hearth.open` and goes there unchanged, if
Hearth knows it; anything else is an error that names it. One directory is opened once a process and
shared by count, since a second open of a store that is held is refused.
"""

import contextlib
import difflib
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import hearth

KIB, MIB = 1 << 10, 1 << 20
DEFAULT_MAX_BLOCK = 16 * MIB
LARGEST_BLOCK = 64 * MIB
SHARD_ALIGNMENT = 4 * KIB

# The options of hearth_open that make sense from an engine's configuration.
STORE_OPTIONS = frozenset({
    "capacity", "value_bytes", "mode", "open", "max_block", "segment", "memory", "staging", "slab",
    "staging_mode", "index_entries", "expected_block", "table_cache", "driver", "queue_depth",
    "operations", "group", "group_buffers", "clean_segments", "write_amplification",
    "heat_half_life", "scrub", "discard", "statistics_period", "allow_absent", "holder",
    "overload", "write_on", "write_budget", "record", "record_limit",
})


# What a call of the store raises that it takes nothing of.
REFUSALS = (hearth.Error, ValueError, TypeError, BufferError)


class ConfigurationError(ValueError):
    """The engine's configuration cannot be used; the message says what to change."""


def split(where: str, given: Mapping[str, Any], own: Mapping[str, Any]
          ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts `given` into the adapter's options (with `own`'s defaults) and the store's."""
    mine, store = dict(own), {}
    for name, value in given.items():
        if name in own:
            if value is not None:
                mine[name] = value
        elif name in STORE_OPTIONS:
            store[name] = value
        else:
            known = sorted([*own, *STORE_OPTIONS])
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise ConfigurationError(f"{where}: no option {name!r}{hint}")
    if not mine.get("path"):
        raise ConfigurationError(
            f"{where}: 'path' is missing: the directory of the store, one a device")
    if store.get("capacity") is None and store.get("value_bytes") is None:
        raise ConfigurationError(
            f"{where}: 'capacity' is missing: what the store may take of the disk, as \"100GiB\"")
    return mine, store


def number(where: str, name: str, value: Any, least: float, most: float) -> float:
    """`value` as a number between bounds; strings that spell one are taken too."""
    try:
        if isinstance(value, bool):
            raise ValueError
        result = float(value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{where}: {name} must be a number, not {value!r}") from None
    if not least <= result <= most:
        raise ConfigurationError(f"{where}: {name} must lie in {least:g} to {most:g}, not {value}")
    return result


def whole(where: str, name: str, value: Any, least: int, most: int) -> int:
    """`value` as a whole number between bounds: half a second to live is not 0, which is for ever.
    """
    result = number(where, name, value, least, most)
    if result != int(result):
        raise ConfigurationError(f"{where}: {name} must be a whole number, not {value}")
    return value if isinstance(value, int) else int(result)


def paths(where: str, given: Any, replica: int, replicas: int) -> list[str]:
    """The store's directories; one for each data-parallel replica, since one process holds it."""
    many = [given] if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(many, (list, tuple)) or not many:
        raise ConfigurationError(f"{where}: path must be a directory or a list of them: {given!r}")
    result = []
    for one in many:
        if not isinstance(one, (str, os.PathLike)):
            raise ConfigurationError(f"{where}: path must be a directory, not {one!r}")
        text = os.path.abspath(os.fspath(one))
        if replicas > 1:
            text = os.path.join(text, f"dp{replica}")
        result.append(text)
    return result


def sized(where: str, store: dict[str, Any], block_bytes: int) -> dict[str, Any]:
    """The store's options with what follows from the engine's block size, where not given."""
    if block_bytes > LARGEST_BLOCK:
        raise ConfigurationError(
            f"{where}: one block of KV is {block_bytes} bytes; a store takes at most "
            f"{LARGEST_BLOCK}. Use fewer tokens a block (block_size, blocks_per_chunk)")
    result = dict(store)
    if result.get("max_block") is None and block_bytes > DEFAULT_MAX_BLOCK:
        result["max_block"] = block_bytes
    if result.get("expected_block") is None:
        result["expected_block"] = block_bytes
    return result


_lock = threading.Lock()
# Directories -> the store, how many hold it, and the options that it was opened with.
_open: dict[tuple[str, ...], tuple[hearth.Store, int, dict[str, Any]]] = {}


def acquire(where: str, directories: list[str], store: dict[str, Any]) -> hearth.Store:
    """Opens the store, or shares the one that this process holds in these directories, which must
    have been opened with the same options: they are the store's, not its users'."""
    key = tuple(os.path.realpath(path) for path in directories)
    # What a block's size suggests is advice, and differs between users.
    asked = {name: value for name, value in store.items()
             if value is not None and name != "expected_block"}
    with _lock:
        if key in _open:
            held, count, options = _open[key]
            for name in sorted(asked.keys() | options.keys()):
                if asked.get(name) != options.get(name):
                    raise ConfigurationError(
                        f"{where}: the store in {', '.join(directories)} is open in this process "
                        f"with {name} = {options.get(name)!r}, not {asked.get(name)!r}. Give both "
                        "users the same options, or directories of their own")
            _open[key] = (held, count + 1, options)
            return held
        for path in directories:
            os.makedirs(path, exist_ok=True)
        try:
            with _any_core():
                opened = hearth.open(
                    directories if len(directories) > 1 else directories[0], **store)
        except hearth.LockedError as error:
            raise ConfigurationError(
                f"{where}: the store in {', '.join(directories)} is in use: {error}. "
                "Give each engine a directory of its own") from error
        # An index that is being rebuilt answers "not there" for blocks that are: an engine takes
        # longer to start than the store to find them all.
        opened.wait_recovered()
        _open[key] = (opened, 1, asked)
        return opened


@contextlib.contextmanager
def _any_core() -> Iterator[None]:
    """Threads that begin within it may run on every core. vLLM pins its workers on CPUs, and what
    they start would share the core of the computation."""
    try:
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    except (AttributeError, OSError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def release(store: hearth.Store) -> None:
    """Gives a share up; the last one closes the store."""
    with _lock:
        for key, (held, count, options) in _open.items():
            if held is store:
                if count > 1:
                    _open[key] = (held, count - 1, options)
                    return
                del _open[key]
                break
    if not store.closed:
        store.close()
