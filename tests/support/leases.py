# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployment leases for tests."""

from __future__ import annotations

from typing import Any

from ansible_collections.driftguard.workers.plugins.module_utils.lease import DeployLease, Taken
from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner import Owner
from support.redis_server import wait_until

ALICE = Owner("alice@ci1", "ci1", "run-a", 0, "", "elsewhere")
BOB = Owner("bob@ci2", "ci2", "run-b", 0, "", "elsewhere")


def taken_by(lease: DeployLease, owner: Owner = ALICE, **options: Any) -> Taken:
    """Take it, as Alice unless told otherwise."""
    return lease.acquire(owner, **options)


def expire(raw: Any) -> None:
    """Let the lease of fleet demo run out now."""
    raw.pexpire("demo:lock:deploy", 1)
    wait_until(lambda: not raw.exists("demo:lock:deploy"), "the lease to run out")
