# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of each host look at: read once per host, over SSH."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
import redis

FLEET = "demo-lab"
ROOT = f"/opt/driftguard/{FLEET}"
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
LAB = PROJECT / ".cache" / "lab" / "molecule"
Containers = list[dict[str, Any]]


@pytest.fixture(scope="module")
def name(host: Any) -> str:
    """The host's name in the inventory."""
    return str(host.ansible.get_variables()["inventory_hostname"])


@pytest.fixture(scope="module")
def head() -> str:
    """The commit that was deployed."""
    done = subprocess.run(["git", "-C", str(PROJECT), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def containers(host: Any) -> Containers:
    """All containers of the fleet on the host, running or not."""
    ids = host.check_output(f"docker ps --all --quiet --filter label=io.driftguard.fleet={FLEET}").split()
    assert ids, "no container of the fleet"
    return list(json.loads(host.check_output(f"docker inspect {' '.join(ids)}")))


@pytest.fixture(scope="module")
def image(host: Any) -> dict[str, Any]:
    """The image that the fleet's release names, as this host's engine has it."""
    release = json.loads(host.file(f"{ROOT}/current/release.json").content_string)
    reference = release["release"]["variants"]["base"]["image"]
    return {"Reference": reference, **json.loads(host.check_output(f"docker image inspect {reference}"))[0]}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """The lab's Redis, as the workers' user."""
    facts = json.loads((LAB / "lab.json").read_text())
    with redis.Redis(
            host=f"{facts['subnet']}.2", ssl=True, ssl_ca_certs=str(LAB / "ca.crt"), username="workers",
            password=(LAB / "redis-workers").read_text(), decode_responses=True) as connected:
        yield connected
