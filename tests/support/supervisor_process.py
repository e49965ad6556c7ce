# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A supervisor as a real process, with a command, an image file, a host record and a Redis of the test's choice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence
from uuid import uuid4

from contract.guard_cases import CONTRACT, FIXTURES, GUARDS

from .processes import processes_of
from .redis_server import RedisServer, next_heartbeat, wait_until

__all__ = ["KEYS", "SHA", "Supervised", "supervised"]

SHA = FIXTURES["environment"]["GIT_SHA"]
KEYS = {name: key.replace("<fleet>", "demo") for name, key in CONTRACT["names"]["redis"].items()}
PYTHON = "/usr/bin/python3"
BASIC = {
    "WORKER_TYPE": "extractor", "WORKER_FLEET": "demo", "WORKER_HOST": "host1", "HEALTH_PORT": "0", "GIT_SHA": SHA,
    "BUILD_DATE": "2026-01-02T03:04:05Z", "WORKER_ENV": "production", "WORKER_DRAIN_SECONDS": "1",
}
# Says that it is there, and waits for its end.
WORK = ("sh", "-c", 'trap "exit 0" TERM; echo at work $$; while :; do sleep 0.05; done')


class Supervised:
    """A started supervisor; its output is read as it comes.

    :param place: for its files. :param environment: its variables beside :data:`BASIC`; None takes one away.
    :param record: text of the host record; a directory for one is then mounted, empty with an empty text.
    :param wrapper: what starts it. :param options: of the guard. :param python: its interpreter.
    :param output: a descriptor for what it says, to read nothing of it here.
    """

    def __init__(
        self, place: Path, environment: Mapping[str, str | None], command: Sequence[str] = WORK,
        record: str | None = None, wrapper: Sequence[str] = (), options: Sequence[str] = ("--supervise",),
        output: int = subprocess.PIPE, python: str = PYTHON,
    ) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.image, self.record = place / "image.json", place / "record" / "guard.json"
        self.image.write_text(FIXTURES["imageFiles"]["new"])
        files = ["--image-file", str(self.image)]
        if record is not None:
            self.record.parent.mkdir(exist_ok=True)
            self.write_record(record)
            files += ["--record", str(self.record.parent)]
        mark = uuid4().hex
        self._mark = f"TEST_MARK={mark}".encode()
        values = {**BASIC, "PATH": os.environ["PATH"], "TEST_MARK": mark, **environment}
        guard = [python, "-IS", str(GUARDS / "version_guard.py"), *options]
        self.output: list[str] = []
        self.process = subprocess.Popen(
            [*wrapper, *guard, *files, "--", *command], stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            env={name: value for name, value in values.items() if value is not None})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything that it and its command have written."""
        return "".join(self.output)

    @property
    def member(self) -> str:
        """Its name in the index."""
        return str(self.said("Supervising as ").split("Supervising as ")[1].split(",")[0])

    @property
    def key(self) -> str:
        """Key of its registration."""
        service, _colon, instance = self.member.partition(":")
        return str(KEYS["registration"]).replace("<service>", service).replace("<instance>", instance)

    def said(self, text: str, number: int = 1, seconds: float = 30) -> str:
        """Wait for the n-th line with some text."""

        def found() -> str | None:
            lines = [line for line in list(self.output) if text in line]
            return lines[number - 1] if len(lines) >= number else None

        return str(wait_until(found, f"{text!r} number {number} in:\n{self.text}", seconds))

    def write_record(self, text: str) -> None:
        """Replace the host record by rename; with an empty text there is none."""
        if not text:
            self.record.unlink(missing_ok=True)
            return
        new = self.record.with_suffix(".new")
        new.write_text(text)
        new.replace(self.record)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer of its HTTP server."""
        address = self.said("Health: ").split("Health: ")[1].strip()
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and content of ``/health``."""
        status, body = self.get("/health")
        return status, json.loads(body)

    def becomes(self, state: str, seconds: float = 30) -> dict[str, Any]:
        """Wait until it says so on ``/health``; the content then."""

        def there() -> dict[str, Any] | None:
            content = self.health()[1]
            return content if content["state"] == state else None

        return dict(wait_until(there, f"state {state}; it said:\n{self.text}", seconds))

    def registers(self, server: RedisServer, state: str, seconds: float = 30) -> dict[str, str]:
        """Wait until its registration says so; the registration then."""
        with server.client() as client:
            def there() -> dict[str, str] | None:
                found = client.hgetall(self.key)
                return found if found.get("state") == state else None

            return dict(wait_until(there, f"registered {state}; it said:\n{self.text}", seconds))

    def next_heartbeat(self, server: RedisServer) -> None:
        """Wait until it registers again."""
        with server.client() as client:
            next_heartbeat(client, self.key)

    @property
    def children(self) -> list[int]:
        """Everything that descends from it and isn't a zombie."""
        return processes_of(self.process.pid)

    @property
    def relatives(self) -> list[int]:
        """Everything that was ever started below it and still runs, wherever it hangs by now: they share its mark."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                mine = self._mark in (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mine and state not in "ZX" and int(entry.name) != self.process.pid:
                found.append(int(entry.name))
        return found

    def end_relatives(self) -> None:
        """Kill them by their groups: one that hops from process to process is never met by its number."""
        groups: set[int] = set()
        deadline = time.monotonic() + 20
        while left := self.relatives:
            assert time.monotonic() < deadline, f"still there: {left}"
            for pid in left:
                with suppress(ProcessLookupError):
                    groups.add(os.getpgid(pid))
            for group in groups - {os.getpgid(0)}:
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def ended(self, seconds: float = 30) -> int:
        """Wait for its end; its exit status."""
        status = self.process.wait(seconds)
        self._reader.join(2)
        return status

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.send(signal.SIGTERM)
        return self.ended()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.output.append(line)


@contextmanager
def supervised(place: Path, environment: Mapping[str, str | None], **arguments: Any) -> Iterator[Supervised]:
    """A started supervisor; whatever it left is killed at the end."""
    made = Supervised(place, environment, **arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.end_relatives()
        made.ended()
