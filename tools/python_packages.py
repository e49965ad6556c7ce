# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual environment ``.venv`` with the locked Python packages; pip's own settings decide where they come from."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import IO, Sequence

from .paths import PYTHON, REQUIREMENTS, VENV, WORKER_LOCK
from .processes import output_of
from .steps import Step, digest, must

PIP_OPTIONS = ("--no-deps", "--require-hashes", "--no-input", "--disable-pip-version-check")
INDEX_REMEDY = "check that the package index can be reached (pip's settings and PIP_* are respected), then run again"
VENV_REMEDY = "install python3-venv, or set PYTHON to an interpreter that has venv and ensurepip"


def steps(profile: str) -> list[Step]:
    """The steps that bring the environment to a profile's locks."""
    controller = _step("controller", "ansible-playbook", "Python environment", [REQUIREMENTS / "controller.txt"])
    if profile in ("demo", "lab"):
        return [controller]
    locks = [REQUIREMENTS / "dev.txt", *([WORKER_LOCK] if WORKER_LOCK.exists() else [])]
    return [controller, _step("dev", "pytest", "Python environment, tests and linters", locks)]


def pip_download(lock: Path, place: Path) -> list[str]:
    """The command that puts the wheels a lock names into a directory."""
    return [
        str(PYTHON), "-m", "pip", "download", *PIP_OPTIONS, "--only-binary", ":all:", "-r", str(lock),
        "--dest", str(place)]


def _step(name: str, program: str, title: str, locks: Sequence[Path]) -> Step:
    # An environment that was made anew has the one's packages and not yet the other's.
    return Step(
        name=f"python-{name}", title=title, inputs=partial(digest, locks, sys.version),
        present=(PYTHON.parent / program).exists, action=partial(_install, locks))


def _install(locks: Sequence[Path], log: IO[bytes]) -> None:
    if output_of([str(PYTHON), "-c", "import sys; print(sys.version)"]) != sys.version:
        if VENV.exists():  # made by another interpreter, or by one that has been removed since
            shutil.rmtree(VENV)
        must([sys.executable, "-m", "venv", str(VENV)], log, VENV_REMEDY)
    chosen = [part for lock in locks for part in ("-r", str(lock))]
    must([str(PYTHON), "-m", "pip", "install", *PIP_OPTIONS, *chosen], log, INDEX_REMEDY)
    must([str(PYTHON), "-m", "pip", "check"], log, "run make lock and commit the locks: two of them disagree")
