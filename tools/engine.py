# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Engine, Compose, buildx and the base image on this machine: by the collection's own bootstrap playbook."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO

from .paths import DEMO_INVENTORY, ROOT, VENV
from .processes import output_of
from .steps import Step, digest, must

PLAYBOOK = ROOT / "playbooks" / "bootstrap.yml"
MADE_BY = (PLAYBOOK, ROOT / "roles" / "docker_host", ROOT / "roles" / "base_image", DEMO_INVENTORY)
QUESTIONS = (
    ("docker", "version", "--format", "{{.Server.Version}}"),
    ("docker", "compose", "version"),
    ("docker", "buildx", "version"),
)


def step() -> Step:
    """The step that runs the playbook."""
    return Step(
        name="engine", title="Docker Engine, Compose, buildx and base image", inputs=lambda: digest(MADE_BY),
        present=answers, action=_bootstrap)


def answers() -> bool:
    """Whether an engine runs here and the client has both plugins."""
    return shutil.which("docker") is not None and all(output_of(question) is not None for question in QUESTIONS)


def _bootstrap(log: IO[bytes]) -> None:
    must(
        [str(VENV / "bin" / "ansible-playbook"), str(PLAYBOOK), "-i", str(DEMO_INVENTORY)], log,
        "the last failed task above says what to do; then run again")


def reaches_engine() -> bool:
    """Whether this very user may use the engine (else what needs it runs through sudo)."""
    return Path("/var/run/docker.sock").exists() and output_of(QUESTIONS[0]) is not None
