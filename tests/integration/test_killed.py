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
from typing import Any

import pytest
from support.fleet import Fleet, wait_for


def processes(needle: str) -> list[int]:
    """Processes whose command line contains a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
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


def converges(fleet: Fleet) -> None:
    """One more run is enough, and leaves nothing to do."""
    fleet.deploy().must_pass()
    fleet.verify().must_pass()
    assert len(fleet.containers()) == 3
    assert fleet.deploy().must_pass().changed == 0


def under_way(fleet: Fleet, **variables: Any) -> subprocess.Popen[str]:
    """A deployment in mid-recreate: alpha's old container is gone, beta's take the whole of their grace time."""
    fleet.commit(ignore_sigterm="beta")
    fleet.deploy().must_pass()
    alpha, beta = ({old.id for old in fleet.containers(service=name)} for name in ("alpha", "beta"))
    fleet.commit()
    fleet.variables.update(variables)
    process = fleet.start("deploy-workers.yml")
    wait_for(lambda: not alpha & there(fleet), "alpha to be recreated", 60)
    assert beta <= there(fleet), "the recreation was over before it was noticed"
    return process


def there(fleet: Fleet) -> set[str]:
    """Ids of the containers that exist, whatever their state."""
    return {str(container.id) for container in fleet.engine.containers.list(all=True, ignore_removed=True)}


def test_ansible_playbook_killed_in_mid_recreate(fleet: Fleet) -> None:
    process = under_way(fleet)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    converges(fleet)


def test_only_the_playbooks_process_killed_while_its_module_goes_on(fleet: Fleet) -> None:
    """The orphaned module must not work against the next run: the higher number stops it, the lock orders the two."""
    process = under_way(fleet, worker_stabilize=15)
    process.kill()
    process.wait()
    fleet.variables["worker_stabilize"] = 2
    converges(fleet)


def test_compose_killed_in_mid_create(fleet: Fleet) -> None:
    fleet.deploy().must_pass()
    fleet.commit()
    fleet.start("deploy-workers.yml")
    needle = f"--project-name {fleet.project}"
    wait_for(lambda: processes(needle), "compose to start", 60)
    kill_all(needle)
    wait_for(lambda: not processes(f"{fleet.directory}/inventory.yml"), "the playbook to end", 120)
    assert "rolled back" in fleet.log.read_text() or "back on what it ran before" in fleet.log.read_text()
    converges(fleet)


def killed_with_all_recreated(fleet: Fleet) -> None:
    """A deployment that was killed when all its containers ran, and before it said what it thinks of them."""
    old = set(fleet.ids().values())
    process = fleet.start("deploy-workers.yml", "-e", "worker_stabilize=30")

    def all_new() -> bool:
        running = {container.id for container in fleet.containers() if container.status == "running"}
        return len(running) == 3 and not running & old

    wait_for(all_new, "all containers to be recreated", 60)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


IMPATIENT = ("-e", "worker_registration_timeout=5")


def test_a_bad_release_that_a_killed_run_left_is_rolled_back(fleet: Fleet) -> None:
    """The next run finds nothing to change, and has to go back all the same."""
    good = fleet.git("rev-parse", "HEAD")
    fleet.deploy().must_pass()
    fleet.commit(mute=True)
    killed_with_all_recreated(fleet)
    run = fleet.deploy(*IMPATIENT).must_fail("[UNREGISTERED]", "back on what it ran before")
    assert fleet.evidence()[-1]["result"] == "rolled back", run.output
    assert fleet.shas() == {good}
    fleet.verify().must_pass()


def test_a_bad_first_release_that_a_killed_run_left_is_removed(fleet: Fleet) -> None:
    fleet.commit(mute=True)
    killed_with_all_recreated(fleet)
    fleet.deploy(*IMPATIENT).must_fail("[UNREGISTERED]")
    assert fleet.containers() == []
    fleet.commit()
    fleet.deploy().must_pass()


def published_and_killed(fleet: Fleet) -> tuple[str, str]:
    """Two commits, the second published by a run that was killed before it made that revision the host's current."""
    first = fleet.git("rev-parse", "HEAD")
    fleet.deploy().must_pass()
    link, history = (fleet.root / fleet.name / part for part in ("current", "state/history.json"))
    target, told = os.readlink(link), history.read_text()
    second = fleet.commit()
    fleet.deploy().must_pass()
    link.unlink()
    link.symlink_to(target)
    history.write_text(told)
    return first, second


def test_a_rollback_goes_back_to_what_was_published_before_the_kill(fleet: Fleet) -> None:
    _, second = published_and_killed(fleet)
    fleet.commit(crash_after=0)
    fleet.deploy().must_fail("exit status 3", "back on what it ran before")
    assert fleet.shas() == {second}
    fleet.verify("-e", f"worker_expected_sha={second}").must_pass()


def test_previous_is_what_was_before_the_published_one(fleet: Fleet) -> None:
    first, _ = published_and_killed(fleet)
    fleet.play("rollback-workers.yml").must_pass()
    assert fleet.shas() == {first}
    fleet.verify().must_pass()


def test_previous_is_the_proved_one_when_a_killed_run_left_another(fleet: Fleet) -> None:
    fleet.deploy().must_pass()
    good = fleet.commit()
    fleet.deploy().must_pass()
    fleet.commit(mute=True)
    killed_with_all_recreated(fleet)
    fleet.play("rollback-workers.yml").must_pass()
    assert fleet.shas() == {good}


def test_the_old_commit_again_after_a_kill_while_its_workers_were_stopping(fleet: Fleet) -> None:
    """They still run, as long as their grace time lasts, and must not be taken for the ones that are wanted."""
    process = under_way(fleet)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    fleet.git("checkout", "-q", "HEAD~1")
    converges(fleet)


def test_half_made_containers_are_healed(fleet: Fleet) -> None:
    """What a compose that was killed in mid-recreate leaves: created, with twelve digits before the name."""
    fleet.deploy().must_pass()
    template = fleet.containers(service="alpha")[0]
    facts = fleet.engine.api.inspect_container(template.id)
    fleet.engine.api.create_container(
        facts["Image"],
        name=f"{template.id[:12]}_{template.name}",
        labels=facts["Config"]["Labels"],
        entrypoint=facts["Config"]["Entrypoint"],
        command=facts["Config"]["Cmd"],
    )
    fleet.verify().must_fail(f"{template.id[:12]}_{template.name}", "[STOPPED]", "half made")
    converges(fleet)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_leave_nothing_working(fleet: Fleet, sign: signal.Signals) -> None:
    process = under_way(fleet)
    os.killpg(process.pid, sign)
    assert process.wait(timeout=60) != 0
    wait_for(lambda: not processes(f"--project-name {fleet.project}"), "compose to end", 60)
    converges(fleet)


@pytest.mark.alone
def test_the_engine_killed_in_mid_recreate(fleet: Fleet) -> None:
    """kill -9 of the engine: the workers live on, the run fails clearly, and the next one converges."""
    process = under_way(fleet)
    restart_engine()
    assert process.wait(timeout=240) != 0
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
