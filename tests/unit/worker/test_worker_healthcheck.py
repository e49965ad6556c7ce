# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image's health check, against servers that answer well, badly or not at all."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from driftguard_worker import healthcheck

FILE = Path(healthcheck.__file__)
Capture = pytest.CaptureFixture[str]


@contextmanager
def answering(answer: bytes, hold: bool = False) -> Iterator[int]:
    """A server for one connection; its port."""
    released = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)
                if hold:
                    released.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        released.set()
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}", 0),
        (b"HTTP/1.0 200 OK\r\n\r\n", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}", 1),
        (b"HTTP/1.1 404 Not Found\r\n\r\n200", 1),
        (b"", 1),
        (b"\xff\xfe\r\n\r\n\xff", 1),
        (b"HTTP/1.1", 1),
    ],
)
def test_status(monkeypatch: pytest.MonkeyPatch, answer: bytes, status: int) -> None:
    with answering(answer) as port:
        monkeypatch.setenv("HEALTH_PORT", str(port))
        assert healthcheck.main() == status


def test_answer_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with answering(b'HTTP/1.1 503 No\r\n\r\n{"state":"starting"}') as port:
        monkeypatch.setenv("HEALTH_PORT", str(port))
        healthcheck.main()
    assert capsys.readouterr().out == '{"state":"starting"}\n'


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("HEALTH_PORT", str(port))
    assert healthcheck.main() == 1
    assert f"expected an answer on 127.0.0.1:{port}; found " in capsys.readouterr().out


def test_a_server_that_hangs_is_given_up() -> None:
    with answering(b"HTTP", hold=True) as port, pytest.raises(socket.timeout):
        healthcheck.ask("127.0.0.1", port, timeout=0.1)


def test_an_endless_answer_is_cut() -> None:
    with answering(b"x" * 100_000) as port:
        assert len(healthcheck.ask("127.0.0.1", port)) <= 8192


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("127.0.0.1", 8081)),
        ({"HEALTH_PORT": "", "HEALTH_HOST": ""}, ("127.0.0.1", 8081)),
        ({"HEALTH_PORT": "9000", "HEALTH_HOST": "0.0.0.0"}, ("127.0.0.1", 9000)),
        ({"HEALTH_HOST": "::"}, ("::1", 8081)),
        ({"HEALTH_HOST": "10.1.2.3"}, ("10.1.2.3", 8081)),
        ({"HEALTH_PORT": "x"}, ("127.0.0.1", 8081)),
    ],
)
def test_address(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[str, int]) -> None:
    for name in ("HEALTH_HOST", "HEALTH_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert healthcheck._address() == expected


def test_runs_without_site_packages() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        command = [sys.executable, "-S", str(FILE)]
        found = subprocess.run(command, env={"HEALTH_PORT": str(port)}, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_imports_no_more_than_sockets() -> None:
    script = f"""
import os, socket, sys
known = set(sys.modules)
exec(compile(open({str(FILE)!r}).read(), "healthcheck", "exec"), {{"__name__": "healthcheck"}})
print(sorted(set(sys.modules) - known))
"""
    found = subprocess.run([sys.executable, "-S", "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"
