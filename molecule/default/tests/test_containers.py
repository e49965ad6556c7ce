# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers: exactly those of the inventory, from the release's image, within their limits, hardened."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

MEMORY = {"classifier": 128 << 20, "extractor": 192 << 20}
NAMES = ("molecule-workers-classifier-1", "molecule-workers-extractor-1", "molecule-workers-extractor-2")
ENGINES_FIRST_LOOK = 60.0
Containers = dict[str, dict[str, Any]]


def test_exactly_the_demanded_ones_are_there(containers: Containers) -> None:
    assert sorted(containers) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_healthy_and_never_restarted(host: Any, name: str) -> None:
    def facts() -> dict[str, Any]:
        return dict(json.loads(host.check_output(f"docker inspect {name}"))[0])

    # An engine before 25 looks for the first time after a whole interval; the deployment didn't wait for that.
    end = time.monotonic() + ENGINES_FIRST_LOOK
    while (found := facts())["State"]["Health"]["Status"] == "starting" and time.monotonic() < end:
        time.sleep(0.5)
    state = found["State"]
    assert (state["Status"], state["Health"]["Status"], found["RestartCount"]) == ("running", "healthy", 0)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_the_release(containers: Containers, image: dict[str, Any], name: str) -> None:
    assert containers[name]["Image"] == image["Id"]
    assert "latest" not in containers[name]["Config"]["Image"]


def test_the_image_is_of_the_commit(host: Any, image: dict[str, Any], head: str) -> None:
    assert image["Config"]["Labels"]["org.opencontainers.image.revision"] == head
    baked = json.loads(host.check_output(
        f"docker run --rm --network none --entrypoint cat {image['Id']} /etc/driftguard/image.json"))
    assert (baked["revision"], baked["fleet"], baked["variant"]) == (head, "molecule", "base")
    assert f"GIT_SHA={head}" in image["Config"]["Env"]


def test_the_base_is_named_by_its_digest(host: Any, image: dict[str, Any]) -> None:
    named = image["Config"]["Labels"]["org.opencontainers.image.base.digest"]
    base = json.loads(host.check_output(f"docker image inspect {named}"))[0]
    assert base["Id"] == named
    assert image["RootFS"]["Layers"][:len(base["RootFS"]["Layers"])] == base["RootFS"]["Layers"]


def test_tags_are_the_commit(image: dict[str, Any], head: str) -> None:
    assert sorted(image["RepoTags"]) == sorted(f"molecule-worker:{tag}" for tag in (head, head[:7]))


@pytest.mark.parametrize("name", NAMES)
def test_its_limits_are_in_force(containers: Containers, host: Any, name: str) -> None:
    limits = containers[name]["HostConfig"]
    memory = MEMORY[containers[name]["Config"]["Labels"]["io.driftguard.service"]]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (memory, 500_000_000, 64)
    # What the kernel enforces, by whichever version of control groups this machine has.
    seen = host.check_output(
        f"docker exec {name} sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max'")
    assert int(seen) == memory


@pytest.mark.parametrize("name", NAMES)
def test_it_is_hardened(containers: Containers, name: str) -> None:
    settings = containers[name]["HostConfig"]
    assert settings["ReadonlyRootfs"] is True
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert not settings["Privileged"]
    assert settings["Init"] is True
    assert any(option.startswith("no-new-privileges") for option in settings["SecurityOpt"])
    assert settings["RestartPolicy"]["Name"] == "always"
    assert settings["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}


@pytest.mark.parametrize("name", NAMES)
def test_its_processes_are_nobody_special(containers: Containers, host: Any, name: str) -> None:
    status = host.check_output(f"docker exec {name} cat /proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert host.run(f"docker exec {name} touch /opt/venv/x").rc != 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_mounted_but_guard_and_secrets(containers: Containers, name: str) -> None:
    mounts = {mount["Destination"]: (mount["Type"], mount["RW"]) for mount in containers[name]["Mounts"]}
    assert mounts == {"/opt/driftguard/guard": ("bind", False), "/run/secrets/redis_password": ("bind", False)}


@pytest.mark.parametrize("name", NAMES)
def test_the_guard_comes_first(containers: Containers, image: dict[str, Any], name: str) -> None:
    command = [containers[name]["Path"], *containers[name]["Args"]]
    own = [*image["Config"]["Entrypoint"], *image["Config"]["Cmd"]]
    assert command[-len(own):] == own
    assert "/opt/driftguard/guard/version_guard.py" in command[:-len(own)]


@pytest.mark.parametrize("name", NAMES)
def test_its_version_is_the_images(containers: Containers, image: dict[str, Any], name: str) -> None:
    both = (containers[name]["Config"]["Env"], image["Config"]["Env"])
    running, built = ([line for line in lines if line.startswith(("GIT_SHA=", "BUILD_DATE="))] for lines in both)
    assert len(built) == 2
    assert sorted(running) == sorted(built)


@pytest.mark.parametrize("name", NAMES)
def test_the_guard_said_that_it_passed(host: Any, name: str, head: str) -> None:
    said = host.run(f"docker logs {name}")
    assert f"[version] Worker: {name.split('-')[2]}" in said.stdout + said.stderr
    assert head[:7] in said.stdout + said.stderr
    assert "Version check passed" in said.stdout + said.stderr


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_in_what_docker_shows(host: Any, containers: Containers, name: str) -> None:
    password = host.check_output("cat /opt/driftguard/molecule/secrets/10001/redis_password.*").strip()
    assert len(password) > 8
    assert password not in json.dumps(containers[name])
    assert host.check_output(f"docker exec {name} cat /run/secrets/redis_password").strip() == password


@pytest.mark.parametrize("name", NAMES)
def test_no_port_is_published(containers: Containers, name: str) -> None:
    assert not any((containers[name]["NetworkSettings"]["Ports"] or {}).values())
