"""The configuration of the adapters: `adapter_params`, checked whole before anything is opened.

Every refusal names the parameter, what it is and what it may be. What is not named here is an
option of hearth_open with its own name and is checked by Hearth; unknown names are refused, since a
misspelt one would silently mean the default.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .keys import Fields

_UNITS = {"": 1, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"^\s*(\d+)\s*([kmgt]?)(i?b)?\s*$", re.IGNORECASE)

# Options of hearth_open that are handed on as they are.
STORE_OPTIONS = (
    "mode", "open", "max_block", "segment", "memory", "staging", "slab", "staging_mode",
    "index_entries", "expected_block", "table_cache", "driver", "queue_depth", "operations",
    "group", "group_buffers", "clean_segments", "write_amplification", "heat_half_life",
    "scrub", "discard", "statistics_period", "allow_absent", "holder", "overload", "write_on",
    "write_budget", "record", "record_limit",
)
OWN = (
    "path", "capacity", "max_capacity_gb", "durability", "lock_seconds", "lock_limit_seconds",
    "namespace", "ttl_seconds", "recovery_seconds",
)
# Fields of `namespace` among those of a namespace.
_CONFIGURED = "config."
_DTYPE = _CONFIGURED + "dtype"
# A segment is 34 of the largest blocks, and a store wants some sixteen segments.
_SEGMENT_BLOCKS = 34
_SEGMENTS = 16


class ConfigurationError(ValueError):
    """A parameter that is missing, unknown or not right."""


def size_of(name: str, value: object) -> int:
    """Bytes of 4096, "4096", "100GiB", "100G"; units are powers of 1024."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.match(value) if isinstance(value, str) else None
    if not found:
        raise ConfigurationError(
            f'{name}: {value!r} is not a size; give bytes or text such as "100GiB"')
    number, unit, _ = found.groups()
    power = _UNITS[unit.lower()]
    return int(number) << power if unit else int(number)


def _number(values: Mapping, name: str, default: float, least: float, most: float) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(f"{name}: {value!r} is not a number; give {least:g} to {most:g}")
    if not least <= value <= most:
        raise ConfigurationError(f"{name}: {value!r} is out of range; give {least:g} to {most:g}")
    return value


def _whole(values: Mapping, name: str, default: int, least: int, most: int) -> int:
    """A number that has no part after the point: half a second must not become none."""
    value = _number(values, name, default, least, most)
    if value != int(value):
        raise ConfigurationError(f"{name}: {value!r} is not a whole number; give {least} to {most}")
    return int(value)


@dataclass(frozen=True)
class Parameters:
    """What an adapter is opened with."""

    path: str | list[str]
    capacity: int
    # What LMCache's eviction reckons with: its watermarks are shares of it.
    max_capacity: int
    durability: str = "written"
    lock_seconds: float = 30.0
    lock_limit_seconds: float = 600.0
    namespace: Fields = ()
    ttl_seconds: int = 0
    recovery_seconds: float = 10.0
    options: dict[str, object] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: object) -> "Parameters":
        if not isinstance(values, Mapping):
            raise ConfigurationError(
                f"adapter_params must be an object of names and values, not {values!r}")
        known = (*OWN, *STORE_OPTIONS)
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigurationError(
                    f"unknown parameter {name!r}{hint} Known: {', '.join(known)}")
        path = values.get("path")
        if isinstance(path, (list, tuple)):
            path = list(path)
        if not path or not all(
                isinstance(one, str) and one
                for one in (path if isinstance(path, list) else [path])):
            raise ConfigurationError(
                'path: the directory of the store (or a list, one a device) is needed, such as '
                '"path": "/mnt/nvme0/hearth"')
        if "capacity" not in values:
            raise ConfigurationError(
                'capacity: how much of the device the store may take is needed, such as '
                '"capacity": "200GiB"')
        capacity = size_of("capacity", values["capacity"])
        if capacity == 0:
            raise ConfigurationError("capacity: 0 bytes hold nothing")
        most = _number(values, "max_capacity_gb", 0, 0, 1 << 30)
        durability = values.get("durability", "written")
        if durability not in ("written", "durable"):
            raise ConfigurationError(
                f"durability: {durability!r} is not known; give \"written\" (the device has it) or "
                '"durable" (flushed)')
        lock = _number(values, "lock_seconds", 30, 1, 3600)
        limit = _number(values, "lock_limit_seconds", 600, 1, 86400)
        if limit < lock:
            raise ConfigurationError(
                f"lock_limit_seconds: {limit:g} is below lock_seconds ({lock:g})")
        ttl = _whole(values, "ttl_seconds", 0, 0, (1 << 32) - 1)
        recovery = _number(values, "recovery_seconds", 10, 0, 86400)
        options = {name: values[name] for name in STORE_OPTIONS if name in values}
        # LMCache's L1 is the DRAM tier. One below it would hold the same blocks twice.
        options.setdefault("staging", 0)
        options.setdefault("max_block", cls._largest_block(capacity))
        return cls(
            path=path, capacity=capacity,
            max_capacity=int(most * (1 << 30)) or capacity, durability=durability,
            lock_seconds=lock, lock_limit_seconds=limit,
            namespace=cls._extra(values.get("namespace", {})), ttl_seconds=ttl,
            recovery_seconds=recovery,
            options=options)

    @property
    def tells_dtype(self) -> bool:
        """Whether `namespace` tells the data type, which bare bytes do not."""
        return any(name == _DTYPE and value for name, value in self.namespace)

    @staticmethod
    def _largest_block(capacity: int) -> int:
        """64 MiB, Hearth's most, where the capacity has room for such segments; else less."""
        for largest in (64 << 20, 32 << 20, 16 << 20):
            if capacity >= largest * _SEGMENT_BLOCKS * _SEGMENTS:
                return largest
        return 8 << 20

    @staticmethod
    def _extra(values: object) -> Fields:
        if not isinstance(values, Mapping):
            raise ConfigurationError(
                f'namespace: {values!r} is not an object; give names and texts, such as '
                '{"dtype": "bfloat16"}')
        fields = []
        for name, value in sorted(values.items()):
            if not isinstance(name, str) or not name or value is None or isinstance(
                    value, (dict, list)):
                raise ConfigurationError(f"namespace: {name!r}: {value!r} is not a name and a text")
            fields.append((_CONFIGURED + name, str(value)))
        return tuple(fields)
