"""Lookups across vLLM's two processes: the scheduler asks, the worker that holds the store answers.

With one worker vLLM runs scheduler and worker in one process on GPUs, and then they share the
object. On CPUs it gives the worker a process of its own; then the scheduler asks over a Unix socket
that only this user may connect to. A message is a batch of keys; the answer comes from the index in
memory. Whatever goes wrong on the way is an answer of "not there", which only costs a recompute.

A request is `op, count, key length | keys` (for CANCEL the two numbers are the request's), an
answer one byte a key, or one in all.
"""

import hashlib
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

logger = init_logger("vllm.hearth.lookups")

HEAD = struct.Struct("<BII")
CONTAINS, CHAIN, CANCEL, PURGE = range(4)
MOST_BYTES = 64 << 20
CONNECT_SECONDS = 60.0
ANSWER_SECONDS = 5.0
PURGE_SECONDS = 120.0


class Answerer(Protocol):
    """What the worker answers; also what the scheduler sees when both share a process."""

    def contains_many(self, keys: Sequence[bytes]) -> Sequence[int]: ...
    def hint_chain(self, request: int, keys: Sequence[bytes]) -> None: ...
    def hint_cancel(self, request: int) -> None: ...
    def purge(self) -> bool: ...


_here: dict[str, Answerer] = {}
_lock = threading.Lock()


def address(engine: str) -> str:
    """The socket of an engine's worker."""
    name = hashlib.sha256(engine.encode()).hexdigest()[:20]
    return os.path.join(tempfile.gettempdir(), f"hearth-vllm-{os.getuid()}-{name}.sock")


class Server:
    """Answers one engine's scheduler from the worker's process."""

    def __init__(self, engine: str, answerer: Answerer) -> None:
        self._engine, self._answerer = engine, answerer
        self._path = address(engine)
        with _lock:
            _here[engine] = answerer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.unlink(self._path)  # left by an engine of this name that was killed
        except FileNotFoundError:
            pass
        # Nobody can connect before listen(), so the mode is right before the first one can.
        self._socket.bind(self._path)
        os.chmod(self._path, 0o600)
        self._socket.listen(4)
        threading.Thread(target=self._accept, name="hearth-lookups", daemon=True).start()

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
                    if op > PURGE or (op in (CONTAINS, CHAIN) and count * length > MOST_BYTES):
                        logger.error("Hearth: a message that is none on %s", self._path)
                        return
                    body = b""
                    if op in (CONTAINS, CHAIN):
                        body = _read(connection, count * length) or b""
                    connection.sendall(self._answer(op, count, length, body))
                except OSError:
                    return
                except hearth.Error as error:
                    logger.warning("Hearth: a lookup failed: %s", error)
                    return

    def _answer(self, op: int, count: int, length: int, body: bytes) -> bytes:
        if op == CANCEL:
            self._answerer.hint_cancel(count | length << 32)
            return b"\1"
        if op == PURGE:
            return bytes([self._answerer.purge()])
        keys = [body[at:at + length] for at in range(0, len(body), length)] if length else []
        if op == CONTAINS:
            return bytes(self._answerer.contains_many(keys))
        if keys:
            self._answerer.hint_chain(_request_of(keys[0]), keys[1:])
        return b"\1"

    def close(self) -> None:
        with _lock:
            if _here.get(self._engine) is self._answerer:
                del _here[self._engine]
        self._socket.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass


class Client:
    """The scheduler's side. Calls are answered in this process where the worker is in it."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._path = address(engine)
        self._socket: Optional[socket.socket] = None
        self._connected_once = False
        self._next_try = 0.0

    def _local(self) -> Optional[Answerer]:
        return _here.get(self._engine)

    def _connection(self) -> Optional[socket.socket]:
        if self._socket is not None:
            return self._socket
        now = time.monotonic()
        if now < self._next_try:
            return None
        # The worker is made before the scheduler, so it is there; a first call may be early.
        deadline = now + (0.0 if self._connected_once else CONNECT_SECONDS)
        while True:
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            one.settimeout(ANSWER_SECONDS)
            try:
                one.connect(self._path)
                self._socket, self._connected_once = one, True
                return one
            except OSError as error:
                one.close()
                if time.monotonic() >= deadline:
                    logger.error("Hearth: no worker answers at %s (%s): nothing will be found",
                                 self._path, error)
                    self._connected_once = True
                    self._next_try = time.monotonic() + ANSWER_SECONDS
                    return None
                time.sleep(0.05)

    def _ask(self, head: bytes, body: bytes, answer: int, seconds: float = ANSWER_SECONDS
             ) -> Optional[bytes]:
        connection = self._connection()
        if connection is None:
            return None
        try:
            connection.settimeout(seconds)
            connection.sendall(head + body)
            got = _read(connection, answer)
            if got is not None:
                return got
            error: Any = "closed"
        except OSError as problem:
            error = problem
        logger.warning("Hearth: the worker did not answer (%s): taken for a miss", error)
        connection.close()
        self._socket = None
        return None

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
        return self._ask(head, b"".join(keys), len(keys)) or bytes(len(keys))

    def hint_chain(self, request: int, keys: Sequence[bytes]) -> None:
        local = self._local()
        if local is not None:
            local.hint_chain(request, keys)
        elif keys:
            first = request.to_bytes(8, "little").ljust(len(keys[0]), b"\0")
            head = HEAD.pack(CHAIN, len(keys) + 1, len(first))
            self._ask(head, b"".join([first, *keys]), 1)

    def hint_cancel(self, request: int) -> None:
        local = self._local()
        if local is not None:
            local.hint_cancel(request)
        else:
            self._ask(HEAD.pack(CANCEL, request & 0xFFFFFFFF, request >> 32), b"", 1)

    def purge(self) -> bool:
        local = self._local()
        if local is not None:
            return local.purge()
        answer = self._ask(HEAD.pack(PURGE, 0, 0), b"", 1, PURGE_SECONDS)
        return answer == b"\1"

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _request_of(field: bytes) -> int:
    return int.from_bytes(field[:8], "little")


def _read(connection: socket.socket, count: int) -> Optional[bytes]:
    """Exactly `count` bytes, or None where the other side has closed."""
    parts = []
    while count > 0:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


