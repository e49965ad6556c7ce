# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Redis over a socket (RESP2), from the standard library alone. Nothing that a server says is trusted."""

from __future__ import annotations

import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

    Word = Union[str, bytes]

TIMEOUT_SECONDS = 2.0  # far below a heartbeat, so that a beat and its retry fit into one
LARGEST_REPLY = 128 * 1024
LARGEST_BULK = 64 * 1024  # of a release record; see contract.json
_LONGEST_ARRAY = 64
_DEEPEST = 3
_PART = 64 * 1024
_REFUSALS = ("NOAUTH", "WRONGPASS", "NOPERM")


class RedisFault(Exception):
    """Redis can't be asked: no connection, no answer in time, an answer that is none."""


class ReplyError(RedisFault):
    """Redis answered with an error; ``code`` is its first word.

    ``refused``: user, password or their rights are what is wrong.
    """

    def __init__(self, text: str, to_credentials: bool = False) -> None:
        super().__init__(text)
        self.code = text.split(" ", 1)[0]
        # What a transaction was discarded for is named in its error.
        named = text.split(" ") if self.code == "EXECABORT" else [self.code]
        self.refused = to_credentials or any(word in _REFUSALS for word in named)


class TooLarge(RedisFault):
    """An answer larger than anything that is asked for."""


class _Incomplete(Exception):
    """The rest of the answer hasn't come yet."""


class Endpoint:
    """Where Redis is, and as whom.

    :param path: of a unix socket; then host and port don't count.
    :param tls: makes the context of a TLS connection; None for none.
    """

    def __init__(
        self, host: str, port: int, path: str, database: int, user: str, password: str,
        tls: Optional[Callable[[], ssl.SSLContext]],
    ) -> None:
        self.host, self.port, self.path, self.database = host, port, path, database
        self.user, self.password, self.tls = user, password, tls

    @property
    def where(self) -> str:
        """The server for messages, without user and password."""
        if self.path:
            return "unix://" + self.path + " database " + str(self.database)
        return ("rediss" if self.tls else "redis") + "://" + self.host + ":" + str(self.port) + "/" + str(self.database)

    def connect(self, seconds: float) -> socket.socket:
        """A connection; :raises OSError: there is none."""
        if self.path:
            bare = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            bare.settimeout(seconds)
            try:
                bare.connect(self.path)
            except OSError:
                bare.close()
                raise
            return bare
        bare = socket.create_connection((self.host, self.port), seconds)
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is None:
            return bare
        try:
            return self.tls().wrap_socket(bare, server_hostname=self.host)
        except OSError:
            bare.close()
            raise


class Client:
    """One connection, made at the first command and again after a fault. For one thread.

    :param name: as ``CLIENT LIST`` shows it.
    """

    def __init__(self, endpoint: Endpoint, name: str, seconds: float = TIMEOUT_SECONDS) -> None:
        self._endpoint = endpoint
        self._name = name
        self._seconds = seconds
        self._socket: Optional[socket.socket] = None
        self._buffer = b""

    def call(self, *words: Word) -> Any:
        """The answer to one command.

        :raises ReplyError: the server says an error. :raises RedisFault: there is no answer; the connection is closed.
        """
        return _checked(self._ask([words])[0])

    def transaction(self, commands: Sequence[Sequence[Word]]) -> None:
        """Run commands as one transaction: all of them or none.

        :raises ReplyError: the first error that the server names.
        """
        replies = self._ask([("MULTI",), *commands, ("EXEC",)])
        results = replies[-1] if isinstance(replies[-1], list) else [RedisFault("a transaction without a result")]
        for reply in [*replies, *results]:
            if isinstance(reply, RedisFault):
                self.close()  # a half of it may be queued
                raise reply

    def send(self, *words: Word) -> None:
        """Send a command whose answers :meth:`receive` gives."""
        self._guarded(lambda link: link.sendall(_encoded(words)))

    def receive(self, seconds: float) -> Any:
        """The next answer or message, None if there was none within some seconds; an error is raised as by call."""
        end = time.monotonic() + seconds
        return self._guarded(lambda link: _checked(self._next(link, end, idle=True)))

    def close(self) -> None:
        """Drop the connection; the next command makes another one."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""

    def _ask(self, commands: Sequence[Sequence[Word]]) -> List[Any]:
        return list(self._guarded(lambda link: self._exchange(link, commands)))

    def _guarded(self, use: Callable[[socket.socket], Any]) -> Any:
        try:
            if self._socket is None:
                self._open()
            assert self._socket is not None
            return use(self._socket)
        except ReplyError:
            raise
        except RedisFault:
            self.close()
            raise
        except (OSError, UnicodeError) as error:
            self.close()
            raise RedisFault(_described(error)) from None

    def _open(self) -> None:
        self._socket = self._endpoint.connect(self._seconds)
        try:
            self._introduce(self._socket)
        except ReplyError:
            self.close()
            raise

    def _introduce(self, link: socket.socket) -> None:
        where = self._endpoint
        if where.user or where.password:
            [reply] = self._exchange(link, [("AUTH", *((where.user,) if where.user else ()), where.password)])
            if isinstance(reply, ReplyError):
                raise ReplyError(str(reply), to_credentials=reply.code != "LOADING")
        if where.database:
            _checked(self._exchange(link, [("SELECT", str(where.database))])[0])
        # A name is for people; a user without the right to set one works all the same.
        self._exchange(link, [("CLIENT", "SETNAME", self._name)])

    def _exchange(self, link: socket.socket, commands: Sequence[Sequence[Word]]) -> List[Any]:
        end = time.monotonic() + self._seconds
        link.settimeout(self._seconds)
        link.sendall(b"".join(_encoded(words) for words in commands))
        return [self._next(link, end) for _command in commands]

    def _next(self, link: socket.socket, end: float, idle: bool = False) -> Any:
        """The next answer; errors are values. With idle, None when nothing at all came in time."""
        while True:
            try:
                value, used = _parsed(self._buffer, 0, 0)
            except _Incomplete:
                if len(self._buffer) > LARGEST_REPLY:
                    raise TooLarge("an answer without an end") from None
            else:
                self._buffer = self._buffer[used:]
                return value
            try:
                # Counted from the question: a server that sends a byte now and then must not hold this thread.
                link.settimeout(max(0.001, end - time.monotonic()))
                part = link.recv(_PART)
            except socket.timeout:
                if idle and not self._buffer:
                    return None
                raise
            if not part:
                raise RedisFault("the server closed the connection")
            self._buffer += part


def _checked(reply: Any) -> Any:
    if isinstance(reply, ReplyError):
        raise reply
    return reply


def _encoded(words: Sequence[Word]) -> bytes:
    parts = [word.encode("utf-8") if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _parsed(buffer: bytes, start: int, depth: int) -> Tuple[Any, int]:
    """The value that begins somewhere in a buffer, and where it ends."""
    end = buffer.find(b"\r\n", start, start + LARGEST_REPLY)
    if end < 0:
        raise _Incomplete
    kind, line, at = buffer[start:start + 1], buffer[start + 1:end], end + 2
    if kind == b"+":
        return line, at
    if kind == b"-":
        return ReplyError(line.decode("utf-8", "replace")), at
    if kind == b":":
        return _number(line), at
    if kind == b"$":
        return _bulk(buffer, at, _number(line))
    if kind == b"*" and depth < _DEEPEST:
        return _array(buffer, at, _number(line), depth + 1)
    raise RedisFault("an answer that isn't one of Redis")


def _bulk(buffer: bytes, at: int, length: int) -> Tuple[Optional[bytes], int]:
    if length == -1:
        return None, at
    if length > LARGEST_BULK:
        raise TooLarge("an answer of " + str(length) + " bytes")
    if length < 0:
        raise RedisFault("an answer of negative length")
    if len(buffer) < at + length + 2:
        raise _Incomplete
    if buffer[at + length:at + length + 2] != b"\r\n":
        raise RedisFault("an answer that doesn't end where it says")
    return buffer[at:at + length], at + length + 2


def _array(buffer: bytes, at: int, length: int, depth: int) -> Tuple[Optional[List[Any]], int]:
    if length == -1:
        return None, at
    if not 0 <= length <= _LONGEST_ARRAY:
        raise TooLarge("an answer of " + str(length) + " parts")
    values = []
    for _part in range(length):
        value, at = _parsed(buffer, at, depth)
        values.append(value)
    return values, at


def _number(line: bytes) -> int:
    digits = line[1:] if line[:1] == b"-" else line
    if not (digits.isdigit() and len(digits) <= 19):
        raise RedisFault("an answer without a number where one has to be")
    return int(line)


def _described(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "no answer in time"
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or getattr(error, "strerror", "")
    return str(reason or error or type(error).__name__)
