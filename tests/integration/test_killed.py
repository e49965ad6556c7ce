# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed in the middle: the next run heals what was left and converges in one go."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.fleet import Fleet, wait_for


def processes(needle: str) -> list[int]:
    """Processes of this machine whose command line contains a text.

    Those of containers are seen here too, and are not meant: a lab's hosts have engines of their own.
    """
    found, mine = [], os.readlink("/proc/self/ns/pid")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if os.readlink(entry / "ns" / "pid") != mine:
                    continue
            except OSError:
                continue
            if needle in line:
                found.append(int(entry.name))
    return found


def kill_all(needle: str) -> None:
    """Kill -9 whatever has a text in its command line."""
    for pid in processes(needle):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_process_of_a_container_is_none_of_this_machines() -> None:
    line = ["sleep", "86399.25"]
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", *line]) as outside:
        try:
            children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
            wait_for(lambda: children.read_text().split(), "the process within")
            found = processes(" ".join(line))
        finally:
            outside.kill()
    assert found == [outside.pid]


@pytest.fixture
def stubborn(module_fleet: Fleet) -> Fleet:
    """A fleet that is deployed, as every test leaves it; its betas take the whole of their grace time."""
    if not module_fleet.containers():
        take_their_time(module_fleet)
        module_fleet.commit(ignore_sigterm="beta")
        module_fleet.deploy().must_pass()
    return module_fleet


def take_their_time(fleet: Fleet) -> None:
    """Betas that are longer in leaving than a busy engine takes to remove an alpha and to tell of it."""
    fleet.variables["worker_service_defaults"]["stop_grace_period"] = "6s"


def converges(fleet: Fleet) -> None:
    """One more run is enough, and leaves nothing to do."""
    fleet.deploy().must_pass()
    fleet.prove().must_pass()
    assert len(fleet.containers()) == 3
    assert not fleet.heal(check=True).changed


def under_way(fleet: Fleet, *arguments: str) -> subprocess.Popen[str]:
    """A deployment in mid-recreate: alpha's old container is gone, beta's are still leaving."""
    alpha, beta = ({old.id for old in fleet.containers(service=name)} for name in ("alpha", "beta"))
    fleet.commit(ignore_sigterm="beta")
    process = fleet.start("deploy-workers.yml", *arguments)
    left = wait_for(lambda: without(alpha, fleet), "alpha to be recreated", 60)
    assert beta <= left, "the recreation was over before it was noticed"
    return process


def without(gone: set[str], fleet: Fleet) -> set[str]:
    """Ids of the containers that exist, whatever their state, by one question; none while any of ``gone`` is there."""
    found = {entry["Id"] for entry in fleet.engine.api.containers(all=True, quiet=True)}
    return set() if gone & found else found


def test_ansible_playbook_killed_in_mid_recreate(stubborn: Fleet) -> None:
    process = under_way(stubborn)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    converges(stubborn)
    assert stubborn.deploy().must_pass().changed == 0


def test_only_the_playbooks_process_killed_while_its_module_goes_on(stubborn: Fleet) -> None:
    """The orphaned module must not work against the next run: the higher number stops it, the lock orders the two."""
    process = under_way(stubborn, "-e", "worker_stabilize=15")
    process.kill()
    process.wait()
    converges(stubborn)


def test_compose_killed_in_mid_create(stubborn: Fleet) -> None:
    stubborn.commit(ignore_sigterm="beta")
    stubborn.start("deploy-workers.yml")
    needle = f"--project-name {stubborn.project}"
    wait_for(lambda: processes(needle), "compose to start", 60)
    kill_all(needle)
    wait_for(lambda: not processes(f"{stubborn.directory}/inventory.yml"), "the playbook to end", 120)
    assert "rolled back" in stubborn.log.read_text() or "back on what it ran before" in stubborn.log.read_text()
    converges(stubborn)


def test_the_old_commit_again_after_a_kill_while_its_workers_were_stopping(stubborn: Fleet) -> None:
    """They still run, as long as their grace time lasts, and must not be taken for the ones that are wanted."""
    process = under_way(stubborn)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stubborn.git("checkout", "-q", "HEAD~1")
    converges(stubborn)


def test_half_made_containers_are_healed(stubborn: Fleet) -> None:
    """What a compose that was killed in mid-recreate leaves: created, with twelve digits before the name."""
    template = stubborn.containers(service="alpha")[0]
    facts = stubborn.engine.api.inspect_container(template.id)
    stubborn.engine.api.create_container(
        facts["Image"],
        name=f"{template.id[:12]}_{template.name}",
        labels=facts["Config"]["Labels"],
        entrypoint=facts["Config"]["Entrypoint"],
        command=facts["Config"]["Cmd"],
    )
    stubborn.verify().must_fail(f"{template.id[:12]}_{template.name}", "[STOPPED]", "half made")
    converges(stubborn)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_leave_nothing_working(stubborn: Fleet, sign: signal.Signals) -> None:
    process = under_way(stubborn)
    os.killpg(process.pid, sign)
    assert process.wait(timeout=600) != 0
    wait_for(lambda: not processes(f"--project-name {stubborn.project}"), "compose to end", 60)
    converges(stubborn)


@pytest.mark.alone
def test_the_engine_killed_in_mid_recreate(fleet: Fleet) -> None:
    """kill -9 of the engine: the workers live on, the run fails clearly, and the next one converges."""
    take_their_time(fleet)
    fleet.commit(ignore_sigterm="beta")
    fleet.deploy().must_pass()
    process = under_way(fleet)
    restart_engine()
    assert process.wait(timeout=1200) != 0
    assert "Traceback" not in fleet.log.read_text()
    converges(fleet)


def restart_engine() -> None:
    """Kill the engine hard and start it as it was started before."""
    pids = processes("dockerd")
    lines = {pid: (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0") for pid in pids}
    pid, line = next((pid, line) for pid, line in lines.items() if os.path.basename(line[0]) == b"dockerd")
    os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: not (Path("/proc") / str(pid)).exists() or b"Z" in (Path("/proc") / str(pid) / "stat").read_bytes(),
        "the engine to be gone",
    )
    kill_all("containerd --config /var/run/docker")
    words = [word.decode() for word in line if word]
    own = [Path(word.split("=", 1)[1]) for word in words if word.startswith("--pidfile=")]
    own += [Path(after) for word, after in itertools.pairwise(words) if word in ("--pidfile", "-p")]
    # A number that another process has by now would keep the engine from starting.
    for stale in (*(own or [Path("/var/run/docker.pid")]), Path("/var/run/docker/containerd/containerd.pid")):
        stale.unlink(missing_ok=True)
    with Path("/var/log/dockerd-test.log").open("ab") as log:
        subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    wait_for(
        lambda: subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0,
        "the engine to answer again",
        60,
    )
