# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment lease as Redis has it: JSON that anybody may have written. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from .lease_owner import MAX_PID, Owner
from .untrusted import clean, json_object, whole_number

OWNER_KEYS = {"name": "owner", "host": "host", "run": "runId", "pid_start": "pidStart", "machine": "machine"}


@dataclass(frozen=True)
class Lease:
    """A lease as Redis has it. Times are ISO-8601 UTC, Redis's own.

    :param number: fencing number, which is the deploy's generation.
    :param released: it was given back, and did not run out.
    """

    token: str
    number: int
    owner: Owner
    started_at: str
    expires_at: str
    released: bool = False

    def __str__(self) -> str:
        owner = self.owner
        process = f"host {owner.host}, pid {owner.pid or 'unknown'}, run {owner.run or 'unnamed'}"
        return f"{owner.name} ({process}) since {self.started_at}, deploy number {self.number}"

    def as_result(self) -> dict[str, Any]:
        """As a module's return value; without the token, which only its holder may know."""
        return {
            "number": self.number, "owner": self.owner.name, "host": self.owner.host, "pid": self.owner.pid,
            "run": self.owner.run, "started_at": self.started_at, "expires_at": self.expires_at,
        }


def parse_lease(text: Optional[str]) -> Optional[Lease]:
    """A lease from JSON that anybody may have written, None when it isn't one."""
    document = json_object(text or "")
    if document is None:
        return None
    token, number = document.get("token"), whole_number(document.get("number"), least=1)
    if not isinstance(token, str) or not token or number is None:
        return None
    pid = whole_number(document.get("pid")) or 0
    shown = {name: _shown(document, key) for name, key in OWNER_KEYS.items()}
    owner = Owner(pid=pid if pid <= MAX_PID else 0, **shown)
    released = document.get("released") is True
    return Lease(token, number, owner, _shown(document, "startedAt"), _shown(document, "expiresAt"), released)


def _shown(document: dict[str, Any], key: str) -> str:
    return clean(str(document.get(key, "")))
