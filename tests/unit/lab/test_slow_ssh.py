# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slow way to a host: bytes arrive whole and late, and the connection breaks where it should."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

import pytest
from lab import slow_ssh

PROGRAM = slow_ssh.__file__
SENT = bytes(range(256)) * 1000


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer, args=(server,), daemon=True).start()
        yield int(server.getsockname()[1])


def _answer(server: socket.socket) -> None:
    there, _address = server.accept()
    with there, suppress(OSError):  # it breaks
        while piece := there.recv(65536):
            there.sendall(piece)


@pytest.fixture
def relayed(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A file with settings, and a relay that reads it."""
    settings = tmp_path / "host.slow"
    with echo() as port, subprocess.Popen(
            [sys.executable, PROGRAM, str(settings), "127.0.0.1", str(port)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE) as process:
        yield settings, process
        process.kill()


def write(settings: Path, milliseconds: int, break_after: int = 0) -> None:
    """Set how slow it is."""
    settings.write_text(json.dumps({"milliseconds": milliseconds, "break_after": break_after}))


def say(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """What comes back for some bytes."""
    assert process.stdin
    assert process.stdout
    threading.Thread(target=_feed, args=(process, text)).start()
    return process.stdout.read(len(text))


def _feed(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdin
    try:
        process.stdin.write(text)
        process.stdin.flush()
    except BrokenPipeError:
        return


def test_everything_comes_through_unchanged(relayed: tuple[Path, subprocess.Popen[bytes]]) -> None:
    settings, process = relayed
    write(settings, 5)
    assert say(process, SENT) == SENT


def test_an_open_connection_gets_slow_when_it_is_told_to(relayed: tuple[Path, subprocess.Popen[bytes]]) -> None:
    settings, process = relayed
    assert say(process, b"hello") == b"hello"
    write(settings, 1500)
    before = time.monotonic()
    assert say(process, b"again") == b"again"
    assert time.monotonic() - before >= 3.0  # there and back


def test_it_breaks_after_so_many_bytes(relayed: tuple[Path, subprocess.Popen[bytes]]) -> None:
    settings, process = relayed
    write(settings, 0, 100_000)
    got = say(process, SENT)
    assert 0 <= len(got) <= 100_000
    assert process.wait(30) == slow_ssh.BROKEN


def test_a_host_that_is_not_there_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = subprocess.run(
        [sys.executable, PROGRAM, str(tmp_path / "none"), "127.0.0.1", str(port)], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == slow_ssh.BROKEN
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr
