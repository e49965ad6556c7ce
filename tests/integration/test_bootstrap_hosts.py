# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role docker_host and playbooks/bootstrap.yml where there is nothing but Debian: 12 with systemd, 13 without.

The two are prepared once, side by side (three minutes on two cores, seven with all tests).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import pytest
from support.fleet import PROJECT, Run, wait_for
from support.fresh_host import FreshHost
from support.role_run import LOCAL, Ansible, facts

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

BOOTSTRAP = PROJECT / "playbooks" / "bootstrap.yml"
PACKAGES = {
    "bookworm": ["ca-certificates", "python3", "systemd", "systemd-sysv"],
    "trixie": ["ca-certificates", "python3", "sudo"],
}
# Not the name of the machine's own base: tests that need one would take these.
REPOSITORY = "driftguard.local/test-base"
PASSWORD = "a-password-for-fresh-hosts"
# The fleet's first host builds and runs Redis: the one where nobody is root.
VARIABLES: dict[str, Any] = {
    "worker_fleet": "fresh", "worker_demo_redis": True, "worker_networks": ["fresh-redis"],
    "worker_redis_url": "redis://fresh-redis:6379/0", "worker_redis_control_url": "redis://127.0.0.1:6379/0",
    "worker_redis_password": PASSWORD}
SYSTEM = ("/etc", "/opt", "/usr/bin", "/usr/libexec", "/usr/sbin", "/var/lib/apt", "/var/lib/dpkg")
SOURCE = "/etc/apt/sources.list.d/driftguard-docker-plugins.sources"
PIN = "/etc/apt/preferences.d/driftguard-docker-plugins"
# A shell, and no more than it needs to run.
SHELL = (
    "bin", "lib", "lib64", "usr/bin/dash", "usr/lib64", "usr/lib/x86_64-linux-gnu/libc.so.6",
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
PID_FILE = "/run/driftguard-dockerd.pid"


@dataclass(frozen=True)
class Fresh:
    """Two hosts and the runs that prepared them."""

    ansible: Ansible
    hosts: dict[str, FreshHost]
    touched_by_check: dict[str, set[str]]
    check: Run
    first: Run
    second: Run

    def role(self, *arguments: str, **variables: Any) -> Run:
        """Apply docker_host again."""
        return self.ansible.role("docker_host", *arguments, **variables)

    def engine_of(self, host: str) -> str:
        """Process number and start of a host's engine."""
        file = "/run/docker.pid" if host == "bookworm" else PID_FILE
        pid = self.hosts[host].run("cat", file)
        return f"{pid} {self.hosts[host].run('stat', '--format', '%Y', f'/proc/{pid}')}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A root file system per release, by the role base_image."""
    here = Ansible(tmp_path_factory.mktemp("images"), {"here": LOCAL})
    made = {}
    for suite, packages in PACKAGES.items():
        run = here.role(
            "base_image", base_image_suite=suite, base_image_packages=packages, base_image_repository=REPOSITORY)
        made[suite] = str(facts(run.must_pass())["reference"])
    return made


@pytest.fixture(scope="module")
def fresh(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    hosts = {
        "trixie": FreshHost(images["trixie"], user="deploy"),
        "bookworm": FreshHost(images["bookworm"], systemd=True)}
    try:
        yield prepare(hosts, tmp_path_factory.mktemp("fresh"))
    finally:
        for host in hosts.values():
            host.close()


def prepare(hosts: dict[str, FreshHost], directory: Path) -> Fresh:
    """Check, run, and run again."""
    ansible = Ansible(directory, {name: host.variables for name, host in hosts.items()})
    before = {name: host.changed_paths(SYSTEM) for name, host in hosts.items()}
    check = ansible.playbook(BOOTSTRAP, "--check", "--diff", variables=VARIABLES).must_pass()
    touched = {name: host.changed_paths(SYSTEM) - before[name] for name, host in hosts.items()}
    first = ansible.playbook(BOOTSTRAP, variables=VARIABLES).must_pass()
    return Fresh(ansible, hosts, touched, check, first, ansible.playbook(BOOTSTRAP, variables=VARIABLES).must_pass())


def test_check_mode_foretells_on_a_host_without_docker(fresh: Fresh) -> None:
    assert fresh.touched_by_check == {"trixie": set(), "bookworm": set()}
    for said in (
        "Would install docker.io, docker-cli, docker-compose, docker-buildx, python3-docker",
        "Would start the engine directly", "Would start the engine by systemd",
        "Would bootstrap bookworm", "Would build driftguard.local/redis", "Would run fresh-redis",
    ):
        assert said in " ".join(fresh.check.output.split()), said


def test_a_second_run_changes_nothing(fresh: Fresh) -> None:
    assert (fresh.first.changed > 10, fresh.second.changed) == (True, 0)


@pytest.mark.parametrize(("host", "engine"), [("bookworm", "20.10."), ("trixie", "26.1.")])
def test_engine_compose_buildx_and_libraries_are_there(fresh: Fresh, host: str, engine: str) -> None:
    there = fresh.hosts[host]
    assert there.run("docker", "version", "--format", "{{.Server.Version}}").startswith(engine)
    assert there.run("docker", "compose", "version", "--short").startswith("2.")
    assert "buildx" in there.run("docker", "buildx", "version")
    there.run("/usr/bin/python3", "-c", "import docker, redis, yaml; docker.from_env().ping()")
    there.run("git", "--version")


@pytest.mark.parametrize("host", ["bookworm", "trixie"])
def test_containers_run_within_limits(fresh: Fresh, host: str) -> None:
    there = fresh.hosts[host]
    there.run("tar", "--create", "--directory", "/", "--file", "/tmp/tiny.tar", *SHELL)
    there.run("docker", "import", "/tmp/tiny.tar", "tiny")
    read = "cd /sys/fs/cgroup; cd memory && read limit < memory.limit_in_bytes || read limit < memory.max; echo $limit"
    assert there.run("docker", "run", "--rm", "--memory", "32m", "tiny", "/usr/bin/dash", "-c", read) == str(32 * 2**20)


def test_debian_12_takes_two_packages_from_13_and_no_more(fresh: Fresh) -> None:
    there = fresh.hosts["bookworm"]
    assert "0 upgraded, 0 newly installed" in there.run("apt-get", "--simulate", "dist-upgrade")
    newer = there.run("apt-cache", "policy", "python3", "docker.io", "containerd", "git", "iptables")
    assert [line for line in newer.splitlines() if "Candidate" in line and "deb13" in line] == []
    listed = there.run("apt-cache", "policy", "docker-compose")
    assert "Installed: 2." in listed


def test_debian_13_has_no_foreign_source(fresh: Fresh) -> None:
    assert fresh.hosts["trixie"].status("test", "-e", PIN) != 0


def test_a_source_left_by_an_upgrade_to_13_goes(fresh: Fresh) -> None:
    there = fresh.hosts["trixie"]
    for path in (SOURCE, PIN):
        there.write(path, "")
    fresh.role("--limit", "trixie").must_pass()
    assert [path for path in (SOURCE, PIN) if there.status("test", "-e", path) == 0] == []


def test_systemd_has_the_engine_where_it_is(fresh: Fresh) -> None:
    assert fresh.hosts["bookworm"].run("systemctl", "is-enabled", "docker") == "enabled"
    assert fresh.hosts["bookworm"].run("systemctl", "is-active", "docker") == "active"
    assert fresh.hosts["bookworm"].status("test", "-e", PID_FILE) != 0


def test_without_systemd_the_engine_outlives_ansible(fresh: Fresh) -> None:
    there = fresh.hosts["trixie"]
    pid = there.run("cat", PID_FILE)
    status = there.run("cat", f"/proc/{pid}/status")
    assert "Name:\tdockerd" in status
    assert "PPid:\t1\n" in status
    assert "API listen on" in there.run("cat", "/var/log/dockerd.log")


def test_redis_runs_for_the_fleet_on_its_first_host(fresh: Fresh) -> None:
    there = fresh.hosts["trixie"]
    ask = "import redis, sys; print(redis.Redis(password=open(sys.argv[1]).read()).config_get('maxmemory-policy'))"
    assert "noeviction" in there.run("python3", "-c", ask, "/etc/driftguard/redis/fresh-redis/conf/password")
    assert there.run("docker", "network", "inspect", "--format", "{{.Name}}", "fresh-redis") == "fresh-redis"
    assert fresh.hosts["bookworm"].run("docker", "ps", "--all", "--quiet") == ""
    assert PASSWORD not in fresh.first.output


def test_new_options_never_restart_an_engine(fresh: Fresh) -> None:
    options = {"shutdown-timeout": 21}
    before = {host: fresh.engine_of(host) for host in fresh.hosts}
    check = fresh.role("--check", docker_host_daemon_options=options).must_pass()
    run = fresh.role(docker_host_daemon_options=options).must_pass()
    again = fresh.role(docker_host_daemon_options=options).must_pass()
    assert (check.changed, run.changed, again.changed) == (2, 2, 0)
    for host, there in fresh.hosts.items():
        assert [facts(done, host)["restart_due"] for done in (check, run, again)] == [True] * 3
        assert json.loads(there.run("cat", "/etc/docker/daemon.json")) == options
    assert {host: fresh.engine_of(host) for host in fresh.hosts} == before
    assert "A restart is due" in " ".join(again.output.split())


def test_an_option_that_the_engine_refuses_is_not_written(fresh: Fresh) -> None:
    before = fresh.hosts["trixie"].run("cat", "/etc/docker/daemon.json")
    run = fresh.role("--limit", "trixie", docker_host_daemon_options={"no-such-option": True})
    run.must_fail("expected the engine to accept docker_host_daemon_options", "no-such-option", "remedy:")
    assert fresh.hosts["trixie"].run("cat", "/etc/docker/daemon.json") == before


def test_a_killed_engine_comes_back_though_its_number_was_given_away(fresh: Fresh) -> None:
    there = fresh.hosts["trixie"]
    containerd = "/run/docker/containerd/containerd.pid"
    there.run("sh", "-c", f"kill -KILL $(cat {PID_FILE}) $(cat {containerd})")
    for path in (PID_FILE, containerd):
        there.write(path, "1")
    assert there.status("docker", "version") != 0
    run = fresh.role("--limit", "trixie").must_pass()
    assert facts(run, "trixie")["started_by"] == "directly"
    wait_for(lambda: "Up" in there.run("docker", "ps", "--filter", "name=fresh-redis"), "Redis to be restarted")


def test_an_engine_that_does_not_come_up_is_explained(fresh: Fresh) -> None:
    there = fresh.hosts["trixie"]
    there.write("/etc/docker/daemon.json", '{"storage-driver": "no-such-driver"}')
    there.run("sh", "-c", f"kill -TERM $(cat {PID_FILE})")
    wait_for(lambda: there.status("test", "-e", PID_FILE) != 0, "the engine to stop")
    run = fresh.role("--limit", "trixie", docker_host_start_timeout=3)
    run.must_fail("expected an engine that answers", "no-such-driver", "remedy:")
