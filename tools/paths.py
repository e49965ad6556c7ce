# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are in a checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = ROOT / "requirements"
COLLECTIONS = ROOT / ".collections" / "ansible_collections"
CACHE = ROOT / ".cache"
LOGS = CACHE / "log"
STAMPS = CACHE / "setup"
BUILD = ROOT / "build"
WORKER_LOCK = ROOT / "files" / "worker" / "requirements.lock"
DEMO_INVENTORY = ROOT / "inventories" / "demo"


def shown(path: Path) -> str:
    """A path as a reader of the output wants it: relative to the checkout where it is inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
