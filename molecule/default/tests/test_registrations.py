# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the workers say of themselves in Redis and over HTTP, and the evidence of the run."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.request import urlopen

TTL = 15
EVIDENCE = f"{os.environ['MOLECULE_PROJECT_DIRECTORY']}/.cache/molecule/evidence/molecule"
Containers = dict[str, dict[str, Any]]


def registrations(client: Any) -> dict[str, dict[str, str]]:
    """All live registrations by container id."""
    found = [client.hgetall(key) for key in client.scan_iter("molecule:worker:*:*:version")]
    return {str(fields["containerId"]): dict(fields) for fields in found}


def test_every_container_is_registered_and_nobody_else(client: Any, containers: Containers) -> None:
    assert sorted(registrations(client)) == sorted(container["Id"] for container in containers.values())


def test_they_say_the_commit_and_that_they_run(client: Any, head: str) -> None:
    for fields in registrations(client).values():
        assert (fields["gitSha"], fields["state"], fields["host"]) == (head, "running", "here")
        assert fields["releaseId"].startswith(head[:12])
        assert fields["startedAt"].endswith("Z")


def test_the_services_are_those_of_the_containers(client: Any, containers: Containers) -> None:
    by_id = {container["Id"]: container["Config"]["Labels"] for container in containers.values()}
    for identity, fields in registrations(client).items():
        assert fields["service"] == by_id[identity]["io.driftguard.service"]


def test_a_registration_lives_for_three_heartbeats(client: Any) -> None:
    left = [client.ttl(key) for key in client.scan_iter("molecule:worker:*:*:version")]
    assert left
    assert all(0 < seconds <= TTL for seconds in left)


def test_the_index_names_each_of_them(client: Any, containers: Containers) -> None:
    now = client.time()[0]
    names = {
        f"{container['Config']['Labels']['io.driftguard.service']}:{container['Id'][:12]}"
        for container in containers.values()}
    assert set(client.zrange("molecule:workers", now - TTL, "+inf", byscore=True)) == names


def test_the_fleets_record_is_settled(client: Any, head: str) -> None:
    record = json.loads(str(client.get("molecule:release")))
    assert (record["phase"], record["target"]["sha"]) == ("settled", head)


def test_the_lease_was_given_back(client: Any) -> None:
    assert client.get("molecule:lock:deploy") is None


def test_redis_never_drops_a_key(client: Any) -> None:
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_health_says_the_version(containers: Containers, head: str) -> None:
    for container in containers.values():
        address = container["NetworkSettings"]["Networks"]["molecule-redis"]["IPAddress"]
        with urlopen(f"http://{address}:8081/health", timeout=10) as response:
            answer = json.load(response)
        assert (answer["status"], answer["version"]["sha"]) == ("ok", head)


def test_the_runs_left_evidence(host: Any, head: str) -> None:
    runs = sorted(host.file(EVIDENCE).listdir())
    assert runs
    last = json.loads(host.file(f"{EVIDENCE}/{runs[-1]}").content_string)
    assert (last["fleet"], last["decision"]) == ("molecule", "publish")
    verdicts = [(row["sha"], row["verdict"]) for row in last["hosts"]["here"]["proof"]["rows"]]
    assert verdicts == [(head, "OK")] * 3
