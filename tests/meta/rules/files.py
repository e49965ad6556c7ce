# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files the repository has: tracked ones, and new ones that git does not ignore."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


@cache
def all_files() -> tuple[str, ...]:
    """Paths relative to the root; links and deleted files are left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    paths = sorted(set(listed.stdout.decode().split("\0")) - {""})
    return tuple(path for path in paths if (ROOT / path).is_file() and not (ROOT / path).is_symlink())


def below(*places: str, suffix: str = "") -> list[str]:
    """Files in these directories, by ending."""
    return [path for path in all_files() if path.startswith(places) and path.endswith(suffix)]


def read(path: str) -> str:
    """A file's text."""
    return (ROOT / path).read_text(encoding="utf-8")
