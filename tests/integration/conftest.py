# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for these tests."""

from __future__ import annotations

import pytest
from support.record_places import on_fleet, on_host, place
from support.shared_redis import raw, server, shared_server

__all__ = ["on_fleet", "on_host", "place", "raw", "server", "shared_server"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side, a test with a fleet of its own may run anywhere; the others share what their file sets up."""
    for item in items:
        if "fleet" not in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
