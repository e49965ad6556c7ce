# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make lock``: resolve requirements/*.in again and write the hash-locked requirements/*.txt."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from .paths import REQUIREMENTS, ROOT, VENV
from .processes import run_visible

OLDEST_PYTHON = "3.11"


@dataclass(frozen=True)
class Lock:
    """One lock file.

    :param name: of the pair ``<name>.in``, ``<name>.txt``.
    :param alone: the packages themselves, without what they depend on.
    :param constraints: locks whose versions this one must share, because both end up in one environment.
    """

    name: str
    alone: bool = False
    constraints: tuple[str, ...] = ()


LOCKS = (
    Lock("controller"),
    Lock("dev", constraints=("requirements/controller.txt", "files/worker/requirements.lock")),
    Lock("collections", alone=True),
    Lock("ansible-test", alone=True),
)


def command(lock: Lock, upgrade: bool) -> list[str]:
    """The uv command that writes one lock."""
    present = [path for path in lock.constraints if (ROOT / path).exists()]
    return [
        str(VENV / "bin" / "uv"), "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST_PYTHON,
        "--generate-hashes", "--no-emit-index-url", "--custom-compile-command", "make lock",
        *(["--no-deps"] if lock.alone else []), *(["--upgrade"] if upgrade else []),
        *(part for path in present for part in ("--constraint", path)),
        f"requirements/{lock.name}.in", "--output-file", f"requirements/{lock.name}.txt",
    ]


def main() -> int:
    """Write all locks; ``--upgrade`` takes newer versions where the ``.in`` files allow them."""
    upgrade = "--upgrade" in sys.argv[1:]
    for lock in LOCKS:
        status = run_visible(command(lock, upgrade), environment={**os.environ, "UV_NATIVE_TLS": "1"})
        if status:
            return status
        print(f"{REQUIREMENTS.name}/{lock.name}.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
