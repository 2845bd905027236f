"""Lookups across vLLM's two processes: the scheduler asks, the worker that holds the store answers.

With one worker vLLM runs scheduler and worker in one process on GPUs, and then they share the
object. On CPUs it gives the worker a process of its own; then the scheduler asks over a Unix socket
that only this user may connect to. A message is a batch of keys; the answer comes from the index in
memory. Whatever goes wrong on the way is an answer of "not there", which only costs a recompute;
and since all of vLLM waits while its scheduler does, a slow answer is none, and the next try waits.

A message is `op, count, key length | keys`; for CANCEL the two numbers are the request's, for RENEW
the first is the epoch. CONTAINS is answered by a byte a key, RENEW by one; hints have no answer.

The socket's name is made of the engine's id and its store's directories. A worker holds its store
alone, so that no other engine can have the name; one that answers there all the same is refused.
"""

import contextlib
import hashlib
import json
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any, Optional, Protocol

from vllm.logger import init_logger

import hearth
from hearth.vllm.options import ConfigurationError

logger = init_logger("vllm.hearth.lookups")

HEAD = struct.Struct("<BII")
CONTAINS, CHAIN, CANCEL, RENEW = range(4)
MOST_BYTES = 64 << 20
LOOKUP_SECONDS = 0.1   # the scheduler waits no longer for a lookup,
HINT_SECONDS = 0.01    # nor to be rid of a hint
RETRY_SECONDS = 1.0    # after a failure nothing is asked for so long
RENEW_SECONDS = 10.0
CREDENTIALS = struct.Struct("3i")  # process, user, group


class Answerer(Protocol):
    """What the worker answers; also what the scheduler sees when both share a process."""

    def contains_many(self, keys: Sequence[bytes]) -> Sequence[int]: ...
    def hint_chain(self, request: int, keys: Sequence[bytes]) -> None: ...
    def hint_cancel(self, request: int) -> None: ...
    def renew(self, epoch: int) -> bool: ...


_here: dict[str, Answerer] = {}  # by address
_lock = threading.Lock()


def address(engine: str, directories: Sequence[str]) -> str:
    """The socket of an engine's worker."""
    whole = json.dumps([engine, *(os.path.realpath(path) for path in directories)])
    name = hashlib.sha256(whole.encode()).hexdigest()[:20]
    return os.path.join(tempfile.gettempdir(), f"hearth-vllm-{os.getuid()}-{name}.sock")


class Server:
    """Answers one engine's scheduler from the worker's process."""

    def __init__(self, engine: str, directories: Sequence[str], answerer: Answerer) -> None:
        self._answerer = answerer
        self._path = address(engine, directories)
        self._clear(engine)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Nobody can connect before listen(), so the mode is right before the first one can.
        self._socket.bind(self._path)
        os.chmod(self._path, 0o600)
        self._socket.listen(4)
        with _lock:
            _here[self._path] = answerer
        threading.Thread(target=self._accept, name="hearth-lookups", daemon=True).start()

    def _clear(self, engine: str) -> None:
        """Removes what an engine of this name left that was killed; refuses if one answers."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as one:
            one.settimeout(RETRY_SECONDS)
            try:
                one.connect(self._path)
            except FileNotFoundError:
                return
            except ConnectionRefusedError:
                pass  # nobody listens
            except OSError as error:
                raise ConfigurationError(
                    f"HearthConnector: {self._path}, where lookups of engine {engine} are "
                    f"answered, cannot be used ({error}); remove it, or set TMPDIR") from error
            else:
                raise ConfigurationError(
                    f"HearthConnector: another worker of engine {engine} answers lookups at "
                    f"{self._path}; give each engine an engine_id of its own")
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigurationError(
                f"HearthConnector: {self._path} was left by another user and cannot be removed "
                f"({error}); remove it, or set TMPDIR") from error

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            threading.Thread(
                target=self._serve, args=(connection,), name="hearth-lookup", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    head = _read(connection, HEAD.size)
                    if head is None:
                        return
                    op, count, length = HEAD.unpack(head)
                    if op > RENEW or (op in (CONTAINS, CHAIN) and count * length > MOST_BYTES):
                        logger.error("Hearth: a message that is none on %s", self._path)
                        return
                    body = b""
                    if op in (CONTAINS, CHAIN):
                        body = _read(connection, count * length) or b""
                    answer = self._answer(op, count, length, body)
                    if answer:
                        connection.sendall(answer)
                except OSError:
                    return
                except Exception as error:  # the worker goes on, and the scheduler sees a miss
                    logger.warning("Hearth: a lookup failed: %s", error)
                    return

    def _answer(self, op: int, count: int, length: int, body: bytes) -> bytes:
        if op == CANCEL:
            self._answerer.hint_cancel(count | length << 32)
            return b""
        if op == RENEW:
            return bytes([self._answerer.renew(count)])
        keys = [body[at:at + length] for at in range(0, len(body), length)] if length else []
        if op == CONTAINS:
            return bytes(self._answerer.contains_many(keys))
        if keys:
            self._answerer.hint_chain(_request_of(keys[0]), keys[1:])
        return b""

    def close(self) -> None:
        with _lock:
            if _here.get(self._path) is self._answerer:
                del _here[self._path]
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # or the thread would stay in accept()
        self._socket.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass


class Client:
    """The scheduler's side. Calls are answered in this process where the worker is in it."""

    def __init__(self, engine: str, directories: Sequence[str]) -> None:
        self._path = address(engine, directories)
        self._socket: Optional[socket.socket] = None
        self._next_try = 0.0

    def _local(self) -> Optional[Answerer]:
        return _here.get(self._path)

    def _connection(self) -> Optional[socket.socket]:
        if self._socket is not None:
            return self._socket
        if time.monotonic() < self._next_try:
            return None
        # vLLM makes the worker before the scheduler asks for anything: it is there, or it is gone.
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            one.settimeout(LOOKUP_SECONDS)
            one.connect(self._path)
            given = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            user = CREDENTIALS.unpack(given)[1]
            if user != os.getuid():
                raise PermissionError(f"user {user} answers there")
        except OSError as error:
            one.close()
            self._failed(f"no worker at {self._path}: {error}")
            return None
        self._socket = one
        return one

    def _failed(self, why: str) -> None:
        """Nothing is asked for a while: what goes wrong once must not cost every step its time."""
        self.close()
        self._next_try = time.monotonic() + RETRY_SECONDS
        logger.warning("Hearth: a lookup is taken for a miss (%s)", why)

    def _ask(self, head: bytes, body: bytes, answer: int, seconds: float) -> Optional[bytes]:
        """Sends a message, and returns its answer of that many bytes; None where there is none."""
        connection = self._connection()
        if connection is None:
            return None
        until = time.monotonic() + seconds
        try:
            connection.settimeout(seconds)
            connection.sendall(head + body)
            got = _read(connection, answer, until)
        except OSError as error:
            self._failed(f"the worker did not answer: {error}")
            return None
        if got is None:
            self._failed("the worker has closed")
        return got

    def contains_many(self, keys: Sequence[bytes]) -> Sequence[int]:
        """One truth value a key; all false when nobody answers."""
        if not keys:
            return []
        local = self._local()
        if local is not None:
            try:
                return local.contains_many(keys)
            except hearth.Error as error:
                logger.warning("Hearth: a lookup failed: %s", error)
                return bytes(len(keys))
        head = HEAD.pack(CONTAINS, len(keys), len(keys[0]))
        return (self._ask(head, b"".join(keys), len(keys), LOOKUP_SECONDS)
                or bytes(len(keys)))

    def hint_chain(self, request: int, keys: Sequence[bytes]) -> None:
        local = self._local()
        if local is not None:
            local.hint_chain(request, keys)
        elif keys:
            first = request.to_bytes(8, "little").ljust(len(keys[0]), b"\0")
            head = HEAD.pack(CHAIN, len(keys) + 1, len(first))
            self._ask(head, b"".join([first, *keys]), 0, HINT_SECONDS)

    def hint_cancel(self, request: int) -> None:
        local = self._local()
        if local is not None:
            local.hint_cancel(request)
        else:
            self._ask(HEAD.pack(CANCEL, request & 0xFFFFFFFF, request >> 32), b"", 0, HINT_SECONDS)

    def renew(self, epoch: int) -> bool:
        local = self._local()
        if local is not None:
            return local.renew(epoch)
        self._next_try = 0.0  # asked for by a person, and not in a step
        return self._ask(HEAD.pack(RENEW, epoch, 0), b"", 1, RENEW_SECONDS) == b"\1"

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _request_of(field: bytes) -> int:
    return int.from_bytes(field[:8], "little")


def _read(connection: socket.socket, count: int, until: Optional[float] = None
          ) -> Optional[bytes]:
    """Exactly `count` bytes, or None where the other side has closed. TimeoutError at `until`."""
    parts = []
    while count > 0:
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            connection.settimeout(left)
        part = connection.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


