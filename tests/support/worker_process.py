# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference worker as a real process, run from its source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from .redis_server import wait_until

__all__ = ["SHA", "WorkerProcess", "running_worker"]

SOURCE = Path(__file__).parents[2] / "files" / "worker" / "src"
SHA = "0123456789abcdef0123456789abcdef01234567"
BASIC = {
    "WORKER_TYPE": "extractor",
    "WORKER_FLEET": "demo",
    "WORKER_HOST": "host1",
    "HEALTH_PORT": "0",
    "GIT_SHA": SHA,
    "BUILD_DATE": "2026-01-02T03:04:05Z",
}


class WorkerProcess:
    """A started worker; its output is read as it comes.

    :param environment: its variables beside :data:`BASIC`; a value of None takes one away.
    :param command: what runs; the reference worker by default.
    """

    def __init__(
        self, environment: Mapping[str, str | None], command: Sequence[str] = ("-m", "driftguard_worker")
    ) -> None:
        values = {**BASIC, **environment, "PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]}
        self.output: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env={name: value for name, value in values.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything it has written."""
        return "".join(self.output)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log lines; whatever is not JSON is the guard's."""
        return [json.loads(line) for line in self.output if not line.startswith("[version]")]

    @property
    def member(self) -> str:
        """Its name in the index."""
        return str(self.event("starting")["worker"])

    @property
    def key(self) -> str:
        """Key of its registration."""
        return f"demo:worker:{self.member}:version"

    def event(self, name: str, number: int = 1) -> dict[str, Any]:
        """Wait for the n-th log line of an event."""

        def found() -> dict[str, Any] | None:
            lines = [line for line in self.lines if line["event"] == name]
            assert len(lines) >= number or self.process.poll() is None or self._reader.is_alive(), self.text
            return lines[number - 1] if len(lines) >= number else None

        line: dict[str, Any] = wait_until(found, f"log line {name!r} number {number} in:\n{self.text}", 30)
        return line

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer of its HTTP server."""
        self.event("starting")
        # One that replaced itself listens on another port.
        address = [line["address"] for line in self.lines if line["event"] == "starting"][-1]
        url = f"http://{address}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and content of ``/health``."""
        status, body = self.get("/health")
        return status, json.loads(body)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = 30) -> int:
        """Wait for its end; its exit status."""
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.send(signal.SIGTERM)
        return self.ended()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)


@contextmanager
def running_worker(
    environment: Mapping[str, str | None], command: Sequence[str] = ("-m", "driftguard_worker")
) -> Iterator[WorkerProcess]:
    """A started worker, killed at the end if it is still there."""
    worker = WorkerProcess(environment, command)
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.ended()
