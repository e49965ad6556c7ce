# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the deployed fleet look at: read once, through the machine that it runs on."""

from __future__ import annotations

import json
import os
from typing import Any, Iterator

import pytest
import redis
import yaml

FLEET = "molecule"
ROOT = f"/opt/driftguard/{FLEET}"
PROJECT = os.environ["MOLECULE_PROJECT_DIRECTORY"]
REDIS_PORT = 26379


@pytest.fixture(scope="module")
def head(host: Any) -> str:
    """The commit that was deployed."""
    return str(host.check_output(f"git -C {PROJECT} rev-parse HEAD"))


@pytest.fixture(scope="module")
def containers(host: Any) -> dict[str, dict[str, Any]]:
    """All containers of the fleet, running or not, by name."""
    ids = host.check_output(f"docker ps --all --quiet --filter label=io.driftguard.fleet={FLEET}").split()
    assert ids, "no container of the fleet"
    found = json.loads(host.check_output(f"docker inspect {' '.join(ids)}"))
    return {container["Name"].lstrip("/"): container for container in found}


@pytest.fixture(scope="module")
def image(host: Any) -> dict[str, Any]:
    """The image that the fleet's release names."""
    release = json.loads(host.file(f"{ROOT}/current/release.json").content_string)
    name = release["release"]["variants"]["base"]["image"]
    return dict(json.loads(host.check_output(f"docker image inspect {name}"))[0])


@pytest.fixture(scope="module")
def compose(host: Any) -> dict[str, Any]:
    """The rendered compose file."""
    return dict(yaml.safe_load(host.file(f"{ROOT}/current/compose.yml").content_string))


@pytest.fixture(scope="module")
def client(host: Any) -> Iterator[Any]:
    """The fleet's Redis, as the modules reach it."""
    password = host.file(f"{PROJECT}/.cache/molecule/redis-password").content_string.strip()
    with redis.Redis(port=REDIS_PORT, password=password, decode_responses=True) as connected:
        yield connected
