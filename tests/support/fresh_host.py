# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that have nothing but Debian: containers that can run an engine of their own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any, Sequence
from uuid import uuid4

import docker
from ansible_collections.driftguard.workers.plugins.module_utils.code_paths import ENGINE_FILES
from support.fleet import TEST_LABEL, wait_for
from support.inner_engine import PREPARE, engine_in_a_container

__all__ = ["FreshHost"]


@dataclass
class FreshHost:
    """A running container as a host of an inventory.

    :param image: with Python, and systemd where it is the first process.
    :param user: who Ansible connects as; other than root it is made, with sudo.
    """

    image: str
    systemd: bool = False
    user: str = "root"

    def __post_init__(self) -> None:
        self.name = f"driftguard-test-{uuid4().hex[:8]}"
        self._engine = docker.from_env()
        self._engine.volumes.create(self.name, labels={TEST_LABEL: "fresh-host"})
        # The program: its system paths option is no option of the engine's interface.
        subprocess.run(self._command(), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._container = self._engine.containers.get(self.name)
        if self.systemd:
            wait_for(lambda: self.status("systemctl", "is-system-running", "--wait") in (0, 1), "systemd to be up")
        if self.user != "root":
            self.run("useradd", "--create-home", self.user)
            self.write("/etc/sudoers.d/test", f"{self.user} ALL=(ALL) NOPASSWD: ALL\n")

    def _command(self) -> list[str]:
        first = ["--tmpfs=/run", "--tmpfs=/run/lock", "--env=container=docker"] if self.systemd else ["--init"]
        return [
            "docker", "run", "--detach", *engine_in_a_container(self.name), f"--hostname={self.name}",
            f"--label={TEST_LABEL}=fresh-host", f"--volume={self.name}:/var/lib/docker", *first,
            self.image, "sh", "-c", PREPARE + ("/sbin/init" if self.systemd else "sleep infinity")]

    @property
    def variables(self) -> dict[str, Any]:
        """How Ansible reaches it."""
        return {
            "ansible_connection": "community.docker.docker", "ansible_host": self.name, "ansible_user": self.user,
            "ansible_python_interpreter": "/usr/bin/python3"}

    def run(self, *command: str) -> str:
        """What a command says, run there as root; it must succeed."""
        status, output = self._execute(command)
        text = output.decode("utf-8", "replace")
        assert status == 0, f"{' '.join(command)}: {text}"
        return text.strip()

    def status(self, *command: str) -> int:
        """Exit status of a command there."""
        return self._execute(command)[0]

    def _execute(self, command: Sequence[str]) -> tuple[int, bytes]:
        status, output = self._container.exec_run(list(command))
        assert isinstance(status, int)
        assert isinstance(output, bytes)
        return status, output

    def write(self, path: str, content: str) -> None:
        """Write a file there."""
        self.run("python3", "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])", path, content)

    def changed_paths(self, below: Sequence[str]) -> set[str]:
        """Paths that differ from the image, of those below some directories; not what the engine itself puts there."""
        paths = {str(row["Path"]) for row in self._container.diff() or ()} - set(ENGINE_FILES)
        return {path for path in paths if path.startswith(tuple(f"{directory}/" for directory in below))}

    def close(self) -> None:
        """Remove it and its engine's data."""
        self._container.remove(force=True, v=True)
        self._engine.volumes.get(self.name).remove(force=True)
        self._engine.close()
