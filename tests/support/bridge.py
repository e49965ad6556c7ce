# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine as containers on the engine's default bridge reach it."""

from __future__ import annotations

from typing import Iterator

import docker
import pytest
from support.redis_server import RedisServer, running_redis

__all__ = ["bridge_address", "redis_on_bridge"]


def bridge_address() -> str:
    """What a server listens on for them."""
    engine = docker.from_env()
    try:
        found = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]
    finally:
        engine.close()
    # Engines before 23 don't tell it of the bridge that they made by themselves.
    return str(found.get("Gateway", "172.17.0.1"))


@pytest.fixture(scope="module")
def redis_on_bridge() -> Iterator[RedisServer]:
    with running_redis(host=bridge_address()) as server:
        yield server
