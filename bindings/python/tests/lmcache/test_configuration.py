"""Wrong configuration is refused before anything is made, with a message that says what to do."""

import json
import re

import pytest
from lmcache_support import CLASSES, SMALL, adapter_json, create, make_key

import hearth
from hearth.lmcache import ConfigurationError

BOTH = pytest.mark.parametrize("kind", list(CLASSES))

WRONG = [
    ({"path": None}, "path: the directory"),
    ({"path": ""}, "path: the directory"),
    ({"path": ["/a", 3]}, "path: the directory"),
    ({"capacity": None}, "capacity: None is not a size"),
    ({"capacity": "lots"}, "capacity: 'lots' is not a size"),
    ({"capacity": -1}, "capacity: -1 is not a size"),
    ({"capacity": 0}, "capacity: 0 bytes"),
    ({"capacty": "1GiB"}, "unknown parameter 'capacty'; did you mean 'capacity'"),
    ({"use_odirect": True}, "unknown parameter 'use_odirect'"),
    ({"durability": "maybe"}, "durability: 'maybe'"),
    ({"lock_seconds": "long"}, "lock_seconds: 'long' is not a number"),
    ({"lock_seconds": 0}, "lock_seconds: 0 is out of range"),
    ({"lock_seconds": 60, "lock_limit_seconds": 30}, "lock_limit_seconds: 30 is below"),
    ({"namespace": "bf16"}, "namespace: 'bf16' is not an object"),
    ({"namespace": {"dtype": ["bf16"]}}, "namespace: 'dtype'"),
    ({"namespace": {"dtype": None}}, "namespace: 'dtype'"),
    ({"ttl_seconds": -5}, "ttl_seconds: -5"),
    ({"ttl_seconds": 0.5}, "ttl_seconds: 0.5 is not a whole number"),
]


@BOTH
@pytest.mark.parametrize("changes, message", WRONG)
def test_refused_with_the_reason(tmp_path, kind, changes, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        create(adapter_json(kind, tmp_path / "store", **changes))
    assert not (tmp_path / "store").exists()


@BOTH
@pytest.mark.parametrize("missing", ["path", "capacity"])
def test_missing_keys(tmp_path, kind, missing):
    values = json.loads(adapter_json(kind, tmp_path / "store"))
    del values["adapter_params"][missing]
    with pytest.raises(ConfigurationError, match=f"^{missing}: "):
        create(json.dumps(values))


@pytest.mark.parametrize("namespace", [{}, {"run": "1"}, {"dtype": ""}])
def test_the_native_type_must_be_told_the_data_type(tmp_path, namespace):
    with pytest.raises(ConfigurationError, match="^namespace: .*dtype.*bfloat16"):
        create(adapter_json("native_plugin", tmp_path / "store", namespace=namespace))
    assert not (tmp_path / "store").exists()


@BOTH
@pytest.mark.parametrize("option, value", [
    ("mode", "neither"), ("driver", "none"), ("max_block", "1TiB"), ("queue_depth", 1),
    ("memory", "1KiB"), ("capacity", "8MiB")])
def test_what_hearth_refuses(tmp_path, kind, option, value):
    with pytest.raises(hearth.Error) as refused:
        create(adapter_json(kind, tmp_path / "store", **{option: value}))
    assert len(str(refused.value)) > 20


@BOTH
def test_a_directory_in_use(machine, kind):
    machine.open("plugin")
    with pytest.raises(hearth.LockedError, match="store") as refused:
        machine.open(kind)
    assert "pid" in str(refused.value)
    # And it does no harm to the one that has it.
    assert machine.drivers[0].fill(2)


@BOTH
def test_a_directory_that_is_none(tmp_path, kind):
    (tmp_path / "file").write_text("x")
    with pytest.raises(hearth.Error):
        create(adapter_json(kind, tmp_path / "file"))


def test_a_store_of_another_block_size(machine):
    driver = machine.open()
    keys = driver.fill(2)
    driver.adapter.close()
    with pytest.raises(hearth.Error, match="maximumBlockBytes"):
        machine.open(max_block="2MiB", segment="68MiB")
    assert all(machine.open().lookup(keys))


def test_no_parameters_at_all():
    values = {"type": "plugin", "module_path": "hearth.lmcache", "class_name": "HearthL2Adapter"}
    with pytest.raises(ConfigurationError, match="path"):
        create(json.dumps(values))


def test_store_mode_refuses_when_full(machine):
    driver = machine.open(mode="store", capacity="340MiB")
    length, stored, refused = 1 << 20, [], 0
    for number in range(400):
        key = make_key(number)
        if driver.store([key], [length]).is_successful():
            stored.append(key)
        else:
            refused += 1
            if refused == 3:
                break
    assert refused == 3 and len(stored) > 50
    assert all(driver.load(stored[:50], [length] * 50))
    assert SMALL["max_block"] == "1MiB"
