# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for these tests."""

from __future__ import annotations

from support.record_places import on_fleet, on_host, place
from support.shared_redis import raw, server, shared_server

__all__ = ["on_fleet", "on_host", "place", "raw", "server", "shared_server"]
