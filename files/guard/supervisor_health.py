# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""/health and /metrics of a supervised worker, and the client that a health check runs."""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
import time

import version_guard as guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Mapping, Tuple

    Answer = Tuple[int, str, str]  # status, type and text

PORT = 8081
JSON, TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_BYTES = 4096
_ANSWER_BYTES = 16384
_CONNECTIONS = 32
_SECONDS = 2.0
_ASK_SECONDS = 5.0
_BACKLOG = 64
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Server(threading.Thread):
    """Answers GET requests, many at once, none for long.

    :param pages: path to what makes its answer, called by this thread.
    :raises OSError: nothing can listen there.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Answer]]) -> None:
        super().__init__(name="health", daemon=True)
        self._pages = pages
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self._listener.listen(_BACKLOG)
        except OSError:
            self._listener.close()
            raise
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._open: Dict[socket.socket, Tuple[float, bytes]] = {}

    def run(self) -> None:
        """Serve for as long as the process lives."""
        while True:
            for key, _events in self._selector.select(_SECONDS if self._open else None):
                link: Any = key.fileobj
                try:
                    self._accept() if link is self._listener else self._serve(link)
                except (OSError, ValueError):
                    self._close(link)
            for link in [link for link, (until, _data) in self._open.items() if until < time.monotonic()]:
                self._close(link)

    def _accept(self) -> None:
        link, _address = self._listener.accept()
        if len(self._open) >= _CONNECTIONS:
            self._close(next(iter(self._open)))  # the oldest one has had the most time
        link.setblocking(False)
        self._open[link] = (time.monotonic() + _SECONDS, b"")
        self._selector.register(link, selectors.EVENT_READ)

    def _serve(self, link: socket.socket) -> None:
        until, data = self._open[link]
        part = link.recv(_REQUEST_BYTES)
        data += part
        if part and b"\n\r\n" not in data and b"\n\n" not in data and len(data) < _REQUEST_BYTES:
            self._open[link] = (until, data)
            return
        link.send(_message(*self._answer(data)))  # less than a socket's buffer
        self._close(link)

    def _answer(self, data: bytes) -> Answer:
        words = data.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            return 400, TEXT, "bad request\n"
        if words[0] not in ("GET", "HEAD"):
            return 405, TEXT, "method not allowed\n"
        page = self._pages.get(words[1].partition("?")[0])
        return page() if page else (404, TEXT, "not found\n")

    def _close(self, link: socket.socket) -> None:
        if self._open.pop(link, None) is not None:
            self._selector.unregister(link)
            link.close()


def _message(status: int, kind: str, text: str) -> bytes:
    body = text.encode("utf-8")
    head = "HTTP/1.0 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"
    return head.format(status, _REASONS[status], kind, len(body)).encode("ascii") + body


def ask(environment: Mapping[bytes, bytes]) -> int:
    """Status 0 for a supervised worker that runs, else 1; prints the answer, which the engine keeps."""
    variables = {os.fsdecode(name): os.fsdecode(environment[name]) for name in environment}
    host = variables.get("HEALTH_HOST") or "127.0.0.1"
    port = variables.get("HEALTH_PORT") or ""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else PORT
    try:
        status, body = _asked(host, number)
        worker = json.loads(body)["workerId"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        guard.say(1, "no supervisor answers on " + guard.shown(host + ":" + str(number)) + ": "
                  + guard.shown(str(error)) + "; read the worker's log, and see HEALTH_PORT")
        return 1
    os.write(1, body)
    # Some other worker's answer, in a network that they share, says nothing of this one.
    mine = str(worker).startswith(variables.get("WORKER_TYPE", "") + ":")
    return 0 if status == b"200" and mine else 1


def _asked(host: str, port: int) -> Tuple[bytes, bytes]:
    end = time.monotonic() + _ASK_SECONDS
    with socket.create_connection((host, port), _ASK_SECONDS) as link:
        link.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        data = b""
        while len(data) < _ANSWER_BYTES:
            link.settimeout(max(0.001, end - time.monotonic()))
            part = link.recv(_ANSWER_BYTES)
            if not part:
                break
            data += part
    head, _blank, body = data.partition(b"\r\n\r\n")
    return b" ".join(head.split(b" ", 2)[1:2]), body
