# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks that stay with a rollout of a test's fleet, and what they leave working on its host."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml

from .fleet import Fleet
from .modules import ModuleRun, run_module

__all__ = ["LONG", "SHORT", "Rollouts", "holding", "send", "whole_session"]

MODULES = (b"worker_rollout", b"worker_steps")
# What a module does to containers; the end of a grace period that it began is the engine's.
TOUCHING = {"create", "start", "destroy", "rename", "update"}
LONG = 600  # seconds: so long a heartbeat ends no rollout of a test
SHORT = 5


class Rollouts:
    """Playbooks with nothing in them but a lease and a rollout of all services of a fleet.

    :ivar after: steps that follow the rollout, in one call with it.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.connection = ""
        self.after: list[dict[str, Any]] = []
        self.redis: dict[str, Any] = {"redis_url": fleet.redis.control_url, "redis_password": fleet.redis.password}

    def lock(self, state: str = "held", **options: Any) -> ModuleRun:
        return run_module("worker_lock", fleet=self.fleet.name, state=state, pid=0, **self.redis, **options)

    def start(self, lease: float = 300.0, **options: Any) -> subprocess.Popen[str]:
        """Start one; ``self.fleet.log`` has its output."""
        return self.fleet.start(str(self.playbook(lease, **options)))

    def playbook(self, lease: float = 300.0, **options: Any) -> Path:
        seen = int((self.fleet.root / self.fleet.name / "state" / "fence").read_text().split()[0])
        lock = {"fleet": self.fleet.name, **self.redis, "lease": lease}
        rollout = {
            "fleet": self.fleet.name, "root": str(self.fleet.root), "host": "here", "services": ["alpha", "beta"],
            "generation": "{{ taken.generation }}", "stabilize": 4, "heartbeat": LONG,
            "lease": {"token": "{{ taken.token }}", "seconds": lease, **self.redis}, **options}
        renewed = {**lock, "state": "renewed", "token": "{{ taken.token }}", "generation": "{{ taken.generation }}"}
        tasks = [
            {"driftguard.workers.worker_lock": {**lock, "floor": seen, "owner": "alice"}, "register": "taken"},
            self._task(rollout),
            {"driftguard.workers.worker_lock": renewed, "register": "kept"},
            {"ansible.builtin.debug": {"msg": "KEPT {{ kept.how }}"}},
            {"driftguard.workers.worker_lock": {**lock, "state": "released", "token": "{{ taken.token }}"}}]
        path = self.fleet.directory / "rollout.yml"
        play = {"hosts": "workers", "gather_facts": False, "tasks": tasks}
        if self.connection:
            play["vars"] = {"ansible_connection": self.connection}
        path.write_text(yaml.safe_dump([play]))
        return path

    def _task(self, rollout: dict[str, Any]) -> dict[str, Any]:
        if not self.after:
            return {"driftguard.workers.worker_rollout": rollout}
        first = {"name": "rollout", "module": "worker_rollout", "options": rollout}
        return {"driftguard.workers.worker_steps": {"steps": [first, *self.after]}, "register": "steps"}

    def modules(self) -> list[int]:
        """Processes of rollouts that work on this fleet, by the files that they keep."""
        found = []
        for note in self.fleet.root.glob("*/state/attended-*/pid"):
            pid = int(note.read_text() or 0)
            line = Path(f"/proc/{pid}/cmdline")
            if line.exists() and any(name in line.read_bytes() for name in MODULES):
                found.append(pid)
        return found

    def all_ended(self) -> bool:
        return bool(list(self.fleet.root.glob("*/state/attended-*/pid"))) and not self.modules()

    def touched(self, since: float, until: float) -> list[str]:
        """What was done to containers of the fleet, from the second of one time to another time, perhaps to come."""
        events = self.fleet.engine.events(
            since=int(since), until=int(until), decode=True,
            filters={"type": "container", "label": f"com.docker.compose.project={self.fleet.project}"})
        return [event["Action"] for event in events if event["Action"] in TOUCHING]


def whole_session(process: subprocess.Popen[str]) -> list[int]:
    """A playbook's process and those that it forked for its tasks, which have sessions of their own."""
    found = [process.pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == process.pid:
                found.append(int(entry.name))
    return found


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def holding(fleet: Fleet, secret: str) -> list[str]:
    """Files of a run that works on this host that have a secret in them: Ansible's own, on both sides, and ours.

    Not those of a renewal, which is there and gone: without pipelining Ansible writes each module's arguments so.
    """
    places = [*fleet.root.glob("*/state"), Path.home() / ".ansible" / "tmp", Path.home() / ".ansible_async",
              fleet.directory / "tmp"]
    asked = ["grep", "-rlF", "--", secret, *(str(place) for place in places if place.exists())]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return [path for path in found if "worker_lock" not in path]
