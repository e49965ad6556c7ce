# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make lock``: resolve requirements/*.in again and write the hash-locked requirements/*.txt."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from .paths import VENV
from .processes import run_visible

CONTROLLER_PYTHON = "3.11"
WORKER_PYTHON = "3.10"


@dataclass(frozen=True)
class Lock:
    """One lock file.

    :param source: what it is resolved from; likewise the file that is written. Both relative to the directory.
    :param python: the oldest version that it has to serve.
    :param alone: the packages themselves, without what they depend on.
    :param constraints: locks whose versions this one must share, because both end up in one environment.
    """

    source: str
    target: str
    python: str = CONTROLLER_PYTHON
    alone: bool = False
    constraints: tuple[str, ...] = ()
    directory: str = "."


WORKER_PLACE = "files/worker"
WORKER = f"{WORKER_PLACE}/requirements.lock"
CONTROLLER = "requirements/controller.txt"
LOCKS = (
    Lock("pyproject.toml", "requirements.lock", python=WORKER_PYTHON, directory=WORKER_PLACE),
    Lock("requirements-build.in", "requirements-build.lock", python=WORKER_PYTHON, directory=WORKER_PLACE),
    Lock("requirements/controller.in", CONTROLLER, constraints=(WORKER,)),
    Lock("requirements/dev.in", "requirements/dev.txt", constraints=(CONTROLLER, WORKER)),
    Lock("requirements/collections.in", "requirements/collections.txt", alone=True),
    Lock("requirements/ansible-test.in", "requirements/ansible-test.txt", alone=True),
)


def command(lock: Lock, upgrade: bool) -> list[str]:
    """The uv command that writes one lock."""
    return [
        str(VENV / "bin" / "uv"), "--directory", lock.directory, "pip", "compile", "--quiet", "--universal",
        "--python-version", lock.python,
        "--generate-hashes", "--no-emit-index-url", "--custom-compile-command", "make lock",
        *(["--no-deps"] if lock.alone else []), *(["--upgrade"] if upgrade else []),
        *(part for path in lock.constraints for part in ("--constraint", path)),
        lock.source, "--output-file", lock.target,
    ]


def main() -> int:
    """Write all locks; ``--upgrade`` takes newer versions where the ``.in`` files allow them."""
    upgrade = "--upgrade" in sys.argv[1:]
    for lock in LOCKS:
        status = run_visible(command(lock, upgrade), environment={**os.environ, "UV_NATIVE_TLS": "1"})
        if status:
            return status
        print(f"{lock.directory}/{lock.target}".removeprefix("./"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
