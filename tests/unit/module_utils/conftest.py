# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for these tests."""

from __future__ import annotations

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.lease import DeployLease
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from support.redis_server import RedisServer
from support.shared_redis import raw, server, shared_server

__all__ = ["gateway", "lease", "raw", "server", "shared_server"]


@pytest.fixture
def gateway(server: RedisServer) -> RedisGateway:
    return RedisGateway.connect(server.url)


@pytest.fixture
def lease(gateway: RedisGateway) -> DeployLease:
    return DeployLease(gateway, "demo", 900)
