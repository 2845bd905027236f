"""Lookups between two processes: names, deadlines, and whoever else is at the socket."""

import os
import socket
import threading
import time
import uuid

import pytest

pytest.importorskip("vllm", exc_type=ImportError)
pytest.importorskip("hearth._hearth", exc_type=ImportError)

from hearth.vllm import lookups
from hearth.vllm.options import ConfigurationError

KEYS = [b"%032d" % index for index in range(64)]


class Answers:
    """A worker with every second key, which can be held up."""

    def __init__(self):
        self.go, self.hints, self.calls = threading.Event(), [], 0
        self.go.set()

    def contains_many(self, keys):
        self.calls += 1
        self.go.wait()
        return [int(key) % 2 == 0 for key in keys]

    def hint_chain(self, request, keys):
        self.go.wait()
        self.hints.append((request, list(keys)))

    def hint_cancel(self, request):
        self.hints.append((request, None))

    def renew(self, epoch):
        self.hints.append(("renew", epoch))
        return True


@pytest.fixture
def pair(tmp_path):
    engine, where = str(uuid.uuid4()), [str(tmp_path)]
    answers = Answers()
    server = lookups.Server(engine, where, answers)
    client = lookups.Client(engine, where)
    assert client._local() is answers  # in one process there is no socket in between
    client._local = lambda: None       # from here on as in two
    yield engine, where, answers, client, server
    answers.go.set()
    client.close()
    server.close()
    assert not os.path.exists(client._path)


def taken(call):
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_lookups_hints_and_resets_go_through(pair):
    _, _, answers, client, _ = pair
    client.hint_chain(7 << 33 | 5, KEYS[:3])
    client.hint_cancel(7 << 33 | 5)
    assert list(client.contains_many(KEYS)) == [True, False] * 32  # after both hints, in order
    assert answers.hints == [(7 << 33 | 5, KEYS[:3]), (7 << 33 | 5, None)]
    assert client.renew(3) and answers.hints[-1] == ("renew", 3)
    assert list(client.contains_many([])) == []


def test_a_worker_that_does_not_answer_costs_one_deadline(pair):
    _, _, answers, client, _ = pair
    assert any(client.contains_many(KEYS))
    answers.go.clear()
    once = taken(lambda: client.contains_many(KEYS))
    assert lookups.LOOKUP_SECONDS <= once < lookups.LOOKUP_SECONDS + 0.3
    asked = answers.calls
    later = taken(lambda: [client.contains_many(KEYS) for _ in range(50)])
    assert later < 0.05 and answers.calls == asked  # nobody is asked for a while
    assert not any(client.contains_many(KEYS))
    answers.go.set()
    time.sleep(lookups.RETRY_SECONDS + 0.1)
    assert any(client.contains_many(KEYS))


def test_hints_do_not_wait(pair):
    _, _, answers, client, _ = pair
    assert any(client.contains_many(KEYS))
    answers.go.clear()
    assert taken(lambda: client.hint_chain(1, KEYS)) < 0.05
    assert taken(lambda: client.hint_cancel(1)) < 0.05
    # Not even when there are more than the socket takes.
    assert taken(lambda: [client.hint_chain(1, KEYS * 40) for _ in range(40)]) < 0.5


def test_without_a_worker_a_lookup_is_a_miss_at_once(tmp_path):
    client = lookups.Client("nobody", [str(tmp_path)])
    assert taken(lambda: [client.contains_many(KEYS) for _ in range(100)]) < 0.05
    assert not any(client.contains_many(KEYS)) and client.renew(1) is False


def test_an_error_in_a_lookup_is_a_miss_and_the_worker_goes_on(pair):
    _, _, answers, client, _ = pair
    answers.contains_many = lambda keys: 1 // 0
    assert not any(client.contains_many(KEYS))
    del answers.contains_many
    client._next_try = 0
    assert any(client.contains_many(KEYS))


def test_a_worker_that_answers_keeps_its_socket(pair):
    """Another engine of the same id and store is refused, and does not take the socket away."""
    engine, where, _, client, _ = pair
    with pytest.raises(ConfigurationError, match="engine_id of its own"):
        lookups.Server(engine, where, Answers())
    assert any(client.contains_many(KEYS))


def test_engines_of_one_id_with_their_own_stores_do_not_meet(pair, tmp_path):
    engine, where, _, client, _ = pair
    other = lookups.Server(engine, [str(tmp_path / "other")], Answers())
    try:
        assert other._path != client._path
        assert any(client.contains_many(KEYS))
    finally:
        other.close()
    assert any(client.contains_many(KEYS))
    (tmp_path / "link").symlink_to(tmp_path)
    assert lookups.address(engine, [str(tmp_path / "link")]) == lookups.address(engine, where)


def test_what_a_killed_worker_left_is_replaced(tmp_path):
    engine, where = str(uuid.uuid4()), [str(tmp_path)]
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(lookups.address(engine, where))
    dead.close()  # the file stays
    server = lookups.Server(engine, where, Answers())
    client = lookups.Client(engine, where)
    client._local = lambda: None
    assert any(client.contains_many(KEYS))
    client.close()
    server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_at_the_socket_is_not_asked(tmp_path):
    engine, where = str(uuid.uuid4()), [str(tmp_path)]
    path = lookups.address(engine, where)
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        there.bind(path)
        os.chmod(path, 0o777)
        there.listen(1)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        client = lookups.Client(engine, where)
        assert client._connection() is None and client._next_try > 0
        with pytest.raises(ConfigurationError, match="another worker"):
            lookups.Server(engine, where, Answers())
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        os.unlink(path)
        for one in (*ready, *done):
            os.close(one)
