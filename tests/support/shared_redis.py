# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Redis that the tests of one file share; each finds it empty."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from support.redis_server import RedisServer, running_redis

__all__ = ["raw", "server", "shared_server"]


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    """A Redis for one file of tests; for those that change its configuration there is ``redis_server``."""
    with running_redis() as started:
        yield started


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """The shared Redis, emptied."""
    shared_server.flush()
    return shared_server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    """A client of the shared Redis."""
    with server.client() as client:
        yield client
