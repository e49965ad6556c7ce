# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""``python -m driftguard_worker.healthcheck``: asks the worker's ``/health`` on this machine.

Fifteen containers may run it every few seconds, so it imports nothing but sockets.
"""

import os
import socket
import sys

__all__ = ["main"]

_PORT = 8081
_TIMEOUT_SECONDS = 5.0
_ANSWER_LIMIT = 4096
_REQUEST = b"GET /health HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ask(host: str, port: int, timeout: float = _TIMEOUT_SECONDS) -> bytes:
    """The first part of the answer, headers and body.

    :param timeout: seconds for each step.
    :raises OSError: nobody answers.
    """
    with socket.create_connection((host, port), timeout) as connection:
        connection.sendall(_REQUEST)
        answer = b""
        while len(answer) < _ANSWER_LIMIT:
            part = connection.recv(_ANSWER_LIMIT)
            if not part:
                break
            answer += part
        return answer


def main() -> int:
    """Status 0 for a healthy worker, else 1; prints the answer, which ``docker inspect`` keeps."""
    host, port = _address()
    try:
        head, _blank, body = ask(host, port).partition(b"\r\n\r\n")
    except OSError as error:
        print(f"expected an answer on {host}:{port}; found {error}; remedy: read the worker's log")
        return 1
    print(body.decode("utf-8", "replace"))
    return 0 if head.split(b" ", 2)[1:2] == [b"200"] else 1


def _address() -> "tuple[str, int]":
    host = os.environ.get("HEALTH_HOST") or "127.0.0.1"
    port = os.environ.get("HEALTH_PORT") or ""
    # An unusable port is the worker's to report; it doesn't start with one.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port) if port.isdecimal() else _PORT


if __name__ == "__main__":
    sys.exit(main())
