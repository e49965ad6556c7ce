# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases for tests."""

from __future__ import annotations

from ansible_collections.driftguard.workers.plugins.module_utils.record import ReleaseRef


def release(letter: str, inputs: str = "0") -> ReleaseRef:
    """A release whose commit is forty times a hex digit, so that a failing test says which."""
    return ReleaseRef(f"{letter * 12}.{inputs * 12}", letter * 40)
