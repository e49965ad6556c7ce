# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Engine, Compose, buildx, base image and the demo's Redis on this machine: by the bootstrap playbook."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import IO

from ansible_collections.driftguard.workers.plugins.module_utils.host_files import write_atomic

from .owned import MADE_FOR
from .paths import DEMO_INVENTORY, ROOT, VENV
from .processes import as_root, output_of, side_by_side
from .steps import Step, digest, must

PLAYBOOKS = ROOT / "playbooks"
MADE_BY = (
    PLAYBOOKS / "bootstrap.yml", PLAYBOOKS / "require_hosts.yml", DEMO_INVENTORY,
    *(ROOT / "roles" / role for role in ("docker_host", "base_image", "redis")))
# What bootstrap.yml made the base, as the demo's inventory reads it.
BASE_FILE = ROOT / ".driftguard" / "demo-base"
# The same Redis serves the demos of all checkouts on a machine; each of them has its password in a file of its own.
PASSWORD_FILE = ROOT / ".driftguard" / "demo-redis-password"
MACHINES_PASSWORD = Path("/etc/driftguard/redis/demo-redis/conf/password")
SOCKETS = (Path("/run/docker.sock"), Path("/var/run/docker.sock"))


def step() -> Step:
    """The step that runs the playbook."""
    return Step(
        name="engine", title="Docker Engine, Compose, buildx, base image, Redis", inputs=lambda: digest(MADE_BY),
        present=is_ready, action=_bootstrap)


def docker() -> list[str]:
    """The command that reaches this machine's engine, through sudo where this user may not; empty when none answers.

    :raises DriftguardError: there is an engine, but this user may neither use it nor sudo.
    """
    if shutil.which("docker") is None:
        return []
    if _answers(["docker"]):
        return ["docker"]
    if not any(socket.exists() for socket in SOCKETS):
        return []
    as_other = as_root(["docker"])
    return as_other if _answers(as_other) else []


def is_ready() -> bool:
    """Whether an engine answers, the client has its plugins, and base image and demo's Redis are there."""
    command = docker()
    try:
        base = BASE_FILE.read_text().strip()
    except OSError:
        base = ""
    questions = (
        ("compose", "version"),
        ("buildx", "version"),
        ("image", "ls", "--quiet", base),
        ("ps", "--quiet", "--filter", f"label={MADE_FOR}={DEMO_INVENTORY.name}"),
    )
    asked = [partial(output_of, [*command, *question]) for question in questions]
    return bool(command and base) and all(side_by_side(asked, len(asked)))


def _answers(command: list[str]) -> bool:
    return bool(output_of([*command, "version", "--format", "{{.Server.Version}}"]))


def take_over_password() -> None:
    """Go on with the password of the demo's Redis that this machine has, where this checkout has none yet.

    Another one would lock out the demo of another checkout: its workers would be started again and again, and take a
    machine's whole processor time with it.
    """
    found = "" if PASSWORD_FILE.exists() else output_of(as_root(["cat", str(MACHINES_PASSWORD)]))
    if found:
        PASSWORD_FILE.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(PASSWORD_FILE, f"{found}\n", 0o600)


def _bootstrap(log: IO[bytes]) -> None:
    take_over_password()
    must(
        [str(VENV / "bin" / "ansible-playbook"), str(PLAYBOOKS / "bootstrap.yml"), "-i", str(DEMO_INVENTORY)], log,
        "the last failed task above says what to do; then run again")
