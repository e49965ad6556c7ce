# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application under the Node guard as a real process, and BullMQ from its registry for those that use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest

from .redis_server import wait_until

__all__ = ["IMAGE", "NEW", "OLD", "NodeWorker", "node_modules", "produce", "record", "running_node"]

ROOT = Path(__file__).parents[2]
PRODUCER = ROOT / "tests" / "apps" / "node_producer"
GUARD = ROOT / "files" / "guard" / "version-guard.cjs"
_FIXTURES = json.loads((GUARD.parent / "contract.json").read_text(encoding="utf-8"))["guard"]["fixtures"]
IMAGE: str = _FIXTURES["imageFiles"]["new"]
NEW, OLD = (_FIXTURES["records"][f"settled on {name}"] for name in ("new", "old"))
BASIC = {
    "NODE_ENV": "production",
    "WORKER_TYPE": "extractor",
    "WORKER_FLEET": "demo",
    "WORKER_HOST": "host1",
    "WORKER_DRAIN_SECONDS": "2",
    "HEALTH_PORT": "0",
    "GIT_SHA": NEW["target"]["sha"],
    "BUILD_DATE": "2026-01-02T03:04:05Z",
}


def record(allowed: dict[str, Any]) -> str:
    """A release record as Redis and guard.json hold it."""
    return json.dumps(allowed, sort_keys=True, indent=2) + "\n"


class NodeWorker:
    """An application that was started under the guard; its output is read as it comes.

    :param place: its directory; ``image.json`` and, where ``host`` is given, the host's record are made there.
    :param program: its code, of which ``app.cjs`` or ``app.mjs`` is made.
    :param environment: its variables beside :data:`BASIC`; a value of None takes one away.
    :param host: the host's record as a text, empty where it is missing; None where none is mounted.
    """

    def __init__(
        self, place: Path, program: str, environment: dict[str, str | None], host: str | None = None,
        name: str = "app.cjs", guard: Path = GUARD,
    ) -> None:
        self.place = place
        place.mkdir(exist_ok=True)
        (place / "image.json").write_text(IMAGE, encoding="utf-8")
        options = {"imageFile": str(place / "image.json")}
        if host is not None:
            (place / "record").mkdir(exist_ok=True)
            if host:
                self.publish_host(host)
            options["record"] = str(place / "record")
        # Only code can name other files than the usual ones; no variable can.
        (place / "preload.cjs").write_text(
            f"require({json.dumps(str(guard))}).protect({json.dumps(options)});", encoding="utf-8")
        (place / name).write_text(program, encoding="utf-8")
        values = {**BASIC, "PATH": os.environ["PATH"], **environment}
        self.output: list[str] = []
        self.process = subprocess.Popen(
            ["node", "--require", str(place / "preload.cjs"), str(place / name)], cwd=place, stdin=subprocess.DEVNULL,
            env={key: value for key, value in values.items() if value is not None}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything it has written."""
        return "".join(self.output)

    def said(self, text: str, times: int = 1, seconds: float = 30) -> str:
        """Wait until it has written something so often; everything it has written."""
        wait_until(lambda: self.text.count(text) >= times, f"{times} x {text!r} in:\n{self.text}", seconds)
        return self.text

    @property
    def key(self) -> str:
        """Key of its registration."""
        return self.said("Registered: ").partition("Registered: ")[2].splitlines()[0]

    def publish_host(self, text: str) -> None:
        """Replace the host's record as a deployment does."""
        made = self.place / "record" / "next"
        made.write_text(text, encoding="utf-8")
        made.rename(self.place / "record" / "guard.json")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer of the guard's server."""
        port = self.said("Health server: 127.0.0.1:").partition("127.0.0.1:")[2].splitlines()[0]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def state(self) -> str:
        """Its state by /health, which answers 200 only while it runs; ``unregistered`` before Redis knows it."""
        status, body = self.get("/health")
        found = str(json.loads(body)["state"])
        assert status == 503 or found == "running", body
        return found if status == 200 or found != "running" else "unregistered"

    def becomes(self, state: str, seconds: float = 30) -> None:
        """Wait for a state."""
        wait_until(lambda: self.state() == state, f"state {state} after:\n{self.text}", seconds)

    def ended(self, seconds: float = 30) -> int:
        """Wait for its end; its exit status."""
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)


@contextmanager
def running_node(*arguments: Any, **named: Any) -> Iterator[NodeWorker]:
    """A started application, killed at the end if it is still there."""
    worker = NodeWorker(*arguments, **named)
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.ended()


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with BullMQ in its ``node_modules``, and the producer."""
    place = tmp_path_factory.mktemp("node") / "producer"
    shutil.copytree(PRODUCER, place, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=place, check=True, capture_output=True, timeout=600)
    return place


def produce(node_modules: Path, url: str, prefix: str, queue: str, count: int) -> list[str]:
    """Add jobs as a Node application does; their ids."""
    command = ["node", "produce.js", url, prefix, queue, str(count)]
    done = subprocess.run(command, cwd=node_modules, check=True, capture_output=True, text=True, timeout=300)
    return list(json.loads(done.stdout)["ids"])
