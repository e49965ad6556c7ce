# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout of 14 services against raw Docker Compose, and a deploy against a playbook written by hand.

Rounds alternate, so that a busy machine slows all sides alike; the ratio of the medians is what counts. The
stabilisation window is a wait that a person chose, so it is taken off; the health checks pass within it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from support.fleet import PROJECT, Fleet, FleetRedis

SERVICES: dict[str, Any] = {f"service-{number:02}": None for number in range(1, 15)}
ROUNDS = 5
ROLLOUT_GOAL = 1.3
NOOP_GOAL_SECONDS = 2.0
WINDOW_SECONDS = 3.0
OTHERS = 10_000
PROOF_GOAL_SECONDS = 0.5

BY_HAND = """
- hosts: workers
  gather_facts: false
  tasks:
    - ansible.builtin.template: {src: "%(template)s", dest: "%(target)s/compose.yml", mode: "0600"}
    - community.docker.docker_compose_v2:
        {project_src: "%(target)s", project_name: "%(project)s", recreate: always, wait: true}
    - ansible.builtin.command:
        argv: [redis-cli, -p, "%(port)s", --no-auth-warning, HGET, "%(fleet)s:worker:{{ item }}:version", gitSha]
      environment: {REDISCLI_AUTH: "%(password)s"}
      loop: %(services)s
      changed_when: false
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, base_reference: str) -> Iterator[Fleet]:
    """A deployed fleet of 14 services."""
    fleet = Fleet(tmp_path_factory.mktemp("bench") / "fleet", fleet_redis, base_reference, SERVICES)
    try:
        fleet.deploy().must_pass()
        yield fleet
    finally:
        fleet.close()


def medians(
    sides: dict[str, Callable[[], object]], rounds: int = ROUNDS, waits: dict[str, float] | None = None
) -> dict[str, float]:
    """Seconds of each side, less what it was told to wait: the median over rounds in which all sides take turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            started = time.monotonic()
            work()
            times[name].append(time.monotonic() - started)
    return {name: statistics.median(values) - (waits or {}).get(name, 0) for name, values in times.items()}


def report(title: str, found: dict[str, float], goal: str) -> None:
    """One paragraph of figures."""
    print(f"\n{title} (goal: {goal}; {os.cpu_count()} cores)")
    for name, seconds in found.items():
        print(f"  {name:<44} {seconds:7.2f} s")


def compose(fleet: Fleet, *arguments: str) -> None:
    """Raw compose on the same file."""
    file = (fleet.root / fleet.name / "current" / "compose.yml").resolve()
    subprocess.run(
        ["docker", "compose", "-p", fleet.project, "-f", str(file), *arguments], check=True, capture_output=True
    )


def test_rollout_against_raw_compose(large: Fleet) -> None:
    """Every container recreated, healthy, registered and proved, against recreated and nothing else."""

    def rolled_out() -> None:
        large.heal(services=list(SERVICES), stabilize=WINDOW_SECONDS)
        large.prove(timeout=20.0).must_pass()

    found = medians(
        {
            "docker compose up -d --force-recreate": lambda: compose(large, "up", "-d", "--force-recreate"),
            "worker_rollout and worker_version_assert": rolled_out,
        },
        waits={"worker_rollout and worker_version_assert": WINDOW_SECONDS},
    )
    ratio = found["worker_rollout and worker_version_assert"] / found["docker compose up -d --force-recreate"]
    report("Rollout of 14 services", found, f"ratio at most {ROLLOUT_GOAL}")
    print(f"  ratio {ratio:.2f}")


def test_noop_of_a_host(large: Fleet) -> None:
    """Module time of a run that has nothing to do."""
    large.heal(stabilize=0.0)
    found = medians(
        {
            "worker_rollout and worker_version_assert, no-op": lambda: (
                large.heal(stabilize=0.0),
                large.prove().must_pass(),
            )
        }
    )
    report("No-op of a host with 14 services", found, f"at most {NOOP_GOAL_SECONDS} s")


def test_proof_among_ten_thousand_registrations(large: Fleet) -> None:
    """A host's whole proof, engine included, while nearly all registrations are other hosts'; and the usual loop."""
    client = large.redis.client
    pattern = f"{large.name}:worker:*:version"
    own = client.hgetall(client.keys(pattern)[0])
    few = medians({"few": lambda: large.prove().must_pass()})["few"]
    with client.pipeline(transaction=False) as pipeline:
        for number in range(OTHERS):
            instance = f"{number:012x}"
            key = f"{large.name}:worker:service-01:{instance}:version"
            pipeline.hset(key, mapping={**own, "host": "elsewhere", "containerId": instance.ljust(64, "c")})
            pipeline.pexpire(key, 3_600_000)
            pipeline.zadd(f"{large.name}:workers", {f"service-01:{instance}": 1.0})
        pipeline.execute()
    found = medians(
        {
            "KEYS + HGETALL loop": lambda: [client.hgetall(key) for key in client.keys(pattern)],
            "worker_version_assert, start to end": lambda: large.prove(hosts=["here", "elsewhere"]).must_pass(),
        }
    )
    with client.pipeline(transaction=False) as pipeline:
        for number in range(OTHERS):
            pipeline.delete(f"{large.name}:worker:service-01:{number:012x}:version")
            pipeline.zrem(f"{large.name}:workers", f"service-01:{number:012x}")
        pipeline.execute()
    report(f"Proof of a host among {OTHERS} registrations", found, f"at most {PROOF_GOAL_SECONDS} s more than alone")
    print(f"  {'the same, without the others':<44} {few:7.2f} s")


def test_deploy_against_a_playbook_by_hand(large: Fleet, tmp_path: Path) -> None:
    """The same work without the proof: template, compose module, a loop over Redis."""
    source = (large.root / large.name / "current" / "compose.yml").read_text()
    template, target = tmp_path / "compose.yml.j2", tmp_path / "target"
    target.mkdir()
    template.write_text("{% raw %}" + source + "{% endraw %}")
    playbook = tmp_path / "by_hand.yml"
    playbook.write_text(
        BY_HAND
        % {
            "template": template,
            "target": target,
            "project": large.project,
            "port": large.redis.port,
            "fleet": large.name,
            "password": large.redis.password,
            "services": list(SERVICES),
        }
    )
    environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}

    def by_hand() -> None:
        subprocess.run(
            [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(large.inventory()), str(playbook)],
            check=True,
            capture_output=True,
            cwd=PROJECT,
            env=environment,
        )

    found = medians(
        {
            "playbook by hand": by_hand,
            "deploy-workers.yml": lambda: large.deploy(
                "-e", "worker_stabilize=0", "-e", f"worker_services={','.join(SERVICES)}"
            ).must_pass(),
        },
        rounds=3,
    )
    report("A deploy that recreates 14 services", found, "faster than by hand")
    print(f"  ratio {found['deploy-workers.yml'] / found['playbook by hand']:.2f}")
