# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where worker_release keeps records: a host's directory, or the fleet's Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.modules import ModuleRun, run_module
from support.redis_server import RedisServer

__all__ = ["Place", "on_fleet", "on_host", "place"]


class Place:
    """The fleet's record or a host's, behind the same module."""

    def __init__(self, root: Path, scope: str, redis: dict[str, str], raw: Any) -> None:
        self.root = root
        self._scope = scope
        self._redis = redis
        self._raw = raw

    def run(self, state: str = "read", target: dict[str, str] | None = None, **options: Any) -> ModuleRun:
        given: dict[str, Any] = {
            "fleet": "demo",
            "root": str(self.root),
            "scope": self._scope,
            "state": state,
            **self._redis,
            **options,
        }
        if target:
            given["target"] = target
        return run_module("worker_release", **given)

    def contents(self) -> dict[str, Any]:
        """Everything that there is but the lock files, to see whether anything changed."""
        paths = [path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("lock")]
        keys = list(self._raw.scan_iter())
        return {**{str(path): path.read_bytes() for path in paths}, **{key: self._raw.dump(key) for key in keys}}


@pytest.fixture
def on_host(tmp_path: Path, raw: Any) -> Place:
    return Place(tmp_path, "host", {}, raw)


@pytest.fixture
def on_fleet(tmp_path: Path, server: RedisServer, raw: Any) -> Place:
    return Place(tmp_path, "fleet", {"redis_url": server.bare_url, "redis_password": server.password}, raw)


@pytest.fixture(params=["on_host", "on_fleet"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found
