# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Redis and one directory for models that are made one after the other; each starts with both empty."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

from model.modules import in_process
from model.world import Model
from support.redis_server import RedisServer

__all__ = ["NewModel", "models"]

NewModel = Callable[..., Model]


@contextmanager
def models(directory: Path) -> Iterator[NewModel]:
    """Makes a world with so many hosts, in place of the one before, while the context lasts."""
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
