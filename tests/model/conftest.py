# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Redis and one directory for all models of a session; each model starts with both empty."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from model.modules import in_process
from model.world import Model
from support.redis_server import RedisServer

NewModel = Callable[..., Model]


@pytest.fixture(scope="session")
def new_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewModel]:
    """Makes a world with so many hosts, in place of the one before."""
    directory = tmp_path_factory.mktemp("model")
    server = RedisServer(directory / "redis")
    server.start()
    client: Any = server.client(decode_responses=False)

    def make(hosts: int = 3) -> Model:
        # The same directory each time: what is rendered is then the same, and rendered once.
        world = Path(directory / "world")
        shutil.rmtree(world, ignore_errors=True)
        client.flushall()
        return Model(world, client, tuple(f"h{number + 1}" for number in range(hosts)))

    try:
        with in_process():
            yield make
    finally:
        server.stop()
