# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fence's decisions of files/guard/contract.json, for whatever carries the fence."""

from __future__ import annotations

from typing import Any

from contract.guard_cases import CONTRACT

FENCE: dict[str, Any] = CONTRACT["fence"]
DECISIONS: list[tuple[str, str, str, str, list[str]]] = [tuple(row) for row in FENCE["decisions"]]


def name_of(decision: tuple[str, str, str, str, list[str]]) -> str:
    """What a decision is called in a test's name."""
    before, host, fleet, _then, _problems = decision
    return f"{before}, host {host}, fleet {fleet}"
