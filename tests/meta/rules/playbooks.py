# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every playbook of a fleet has to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import yaml

from .files import ROOT, all_files

LINEAR = "ansible.builtin.linear"


def fleet_playbooks() -> list[Path]:
    """The playbooks that go over a fleet's hosts; those with a dash only import them."""
    return [ROOT / path for path in all_files() if path.startswith("playbooks/") and path.endswith("_workers.yml")]


def unordered(plays: list[dict[str, Any]]) -> Iterator[str]:
    """Plays that a configuration may let hosts run through on their own: no batch would wait for the one before."""
    for play in plays:
        if "hosts" in play and play.get("strategy") != LINEAR:
            yield f"play {play.get('name', play['hosts'])}: no strategy: {LINEAR}"


def unchecked(plays: list[dict[str, Any]]) -> Iterator[str]:
    """Playbooks whose first play isn't the check that there are hosts at all, or one that has it first."""
    first = str(plays[0].get("ansible.builtin.import_playbook", ""))
    if first != "require_hosts.yml" and not first.endswith("_workers.yml"):
        yield f"begins with {first or plays[0].get('name')}, not with require_hosts.yml"


def load(path: Path) -> list[dict[str, Any]]:
    """The plays of a playbook."""
    return list(yaml.safe_load(path.read_text(encoding="utf-8")))
