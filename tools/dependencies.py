# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collections this one depends on, without Galaxy: from the ``ansible`` package, which bundles the same files."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from .paths import CACHE, COLLECTIONS, REQUIREMENTS
from .python_packages import INDEX_REMEDY, pip_download
from .steps import Step, digest, must

LOCK = REQUIREMENTS / "collections.txt"
NAMESPACE = "community"
WANTED = ("docker", "library_inventory_filtering_v1")


def step() -> Step:
    """The step that unpacks them."""
    return Step(
        name="collections", title="community.docker", inputs=lambda: digest([LOCK]),
        present=lambda: all(_manifest(COLLECTIONS / NAMESPACE, name).is_file() for name in WANTED), action=_unpack)


def _manifest(namespace: Path, name: str) -> Path:
    return namespace / name / "MANIFEST.json"


def _unpack(log: IO[bytes]) -> None:
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        place = Path(name)
        must(pip_download(LOCK, place), log, INDEX_REMEDY)
        _extract(next(place.glob("ansible-*.whl")), place)
        _replace(place / "ansible_collections" / NAMESPACE, COLLECTIONS / NAMESPACE)


def _extract(wheel: Path, place: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in WANTED:
            prefix = f"ansible_collections/{NAMESPACE}/{name}/"
            members = [member for member in archive.namelist() if member.startswith(prefix)]
            if not members:
                raise DriftguardError(
                    str(LOCK.name), f"a package that bundles {NAMESPACE}.{name}", f"{wheel.name} doesn't",
                    "lock a version that does (make lock)")
            archive.extractall(place, members)


def _replace(new: Path, old: Path) -> None:
    if old.exists():
        shutil.rmtree(old)
    old.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(str(new), str(old))
