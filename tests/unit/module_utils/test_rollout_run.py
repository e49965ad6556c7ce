# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying out a plan: compose checks its file, containers go by id, missing ones come; secrets stay hidden."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.attendance import SafePoint
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_plan import Plan, plan_rollout
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_run import (
    carry_out,
    masked,
    remove_project,
    secret_values,
)
from support.containers import PROJECT, FakeEngine, container, inspected, wanted
from support.redis_server import wait_until

DOCKER = """#!/bin/sh
echo "$* | ${COMPOSE_FILE-unset} ${COMPOSE_PROJECT_NAME-unset}" >> "$CALLS"
case "$*" in *"$FAIL"*) echo "it says no" >&2; exit 3;; esac
case "$*" in *"$HANG"*) read -r _ < "$GO";; esac
"""
# A module that takes a fleet off, in a process of its own.
TAKES_OFF = """
import sys
from pathlib import Path
from support.rollout_host import Host
Host(Path(sys.argv[1])).rollout(state="absent")
"""


class Host:
    """An engine, and a ``docker`` that writes down how it was called."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls_file = directory / "calls"
        self.file = directory / "compose.yml"
        program = directory / "docker"
        program.write_text(DOCKER)
        program.chmod(0o755)
        for name, value in {
            "PATH": f"{directory}:{os.environ['PATH']}", "CALLS": str(self.calls_file), "FAIL": "nothing does",
            "HANG": "nothing does", "GO": str(directory / "go"),
            "COMPOSE_FILE": "/elsewhere", "COMPOSE_PROJECT_NAME": "elsewhere",
        }.items():
            monkeypatch.setenv(name, value)
        self.engine = FakeEngine([inspected("a"), inspected("b", number=2), inspected("c", number=3)])
        self.lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR)
        self.note = directory / "leaving"
        self.points = 0

    def carry_out(self, plan: Plan, graces: Any = None, overtaken_at: int = -1) -> None:
        engine: Any = self.engine

        def safe_point() -> None:
            self.points += 1
            if self.points == overtaken_at:
                raise DriftguardError("fence", "number 7", "number 8", "start a new deploy")

        carry_out(engine, plan, PROJECT, self.file, graces or {}, SafePoint([safe_point]), self.lock, self.note)

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    found = Host(tmp_path, monkeypatch)
    yield found
    os.close(found.lock)


def recreate_b() -> Plan:
    """One of three replicas is wrong, one is missing, and another service as a whole."""
    containers = [container("a"), container("b", number=2, memory=1), container("c", number=3)]
    return plan_rollout(PROJECT, {"extractor": wanted(replicas=4), "ocr": wanted("ocr")}, containers)


def test_exactly_what_is_wrong_goes_and_what_is_missing_comes(host: Host) -> None:
    host.carry_out(recreate_b())
    common = (
        f"compose --ansi never --progress quiet --project-name {PROJECT} --project-directory {host.file.parent} "
        f"--env-file /dev/null --file {host.file}")
    assert host.calls() == [
        f"{common} config --quiet | unset unset",
        f"{common} up --detach --no-recreate --no-deps --pull never extractor ocr | unset unset"]
    assert (sorted(host.engine.containers), host.note.exists()) == (["a", "c"], False)


def test_nothing_to_do_calls_nobody(host: Host) -> None:
    host.carry_out(plan_rollout(PROJECT, {"extractor": wanted()}, [container("a")]))
    assert (host.calls(), host.engine.stopped, len(host.engine.containers)) == ([], [], 3)


@pytest.mark.parametrize(("old", "new", "grace"), [(30, 60, 60), (90, 60, 90), (10, 0, 10)])
def test_the_longer_grace_counts(host: Host, old: int, new: int, grace: int) -> None:
    plan = plan_rollout(PROJECT, {"extractor": wanted()}, [container("a", memory=1, stop_timeout=old)])
    host.carry_out(plan, {"extractor": new})
    assert host.engine.stopped == [("a", grace)]


def test_a_file_that_compose_refuses_costs_no_container(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "config")
    with pytest.raises(DriftguardError, match="it says no"):
        host.carry_out(recreate_b())
    assert (host.engine.stopped, host.note.exists(), len(host.calls())) == ([], False, 1)


def test_an_overtaken_deployment_stops_at_every_safe_point(host: Host) -> None:
    host.carry_out(recreate_b())
    points, host.points = host.points, 0
    assert points == 4
    for point in range(1, points + 1):
        host.points = 0
        host.engine.containers["b"] = inspected("b")
        with pytest.raises(DriftguardError, match="number 8"):
            host.carry_out(recreate_b(), overtaken_at=point)
        assert not any(" up " in call for call in host.calls()[2:])


@pytest.fixture
def hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Compose hangs while it removes networks, until what this gives is closed."""
    os.mkfifo(tmp_path / "go")
    monkeypatch.setenv("HANG", " down")
    handle = os.open(tmp_path / "go", os.O_RDWR)
    yield handle
    with suppress(OSError):
        os.close(handle)


def test_compose_that_outlives_its_module_keeps_the_host_locked_to_its_end(
    host: Host, tmp_path: Path, hangs: int,
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    here = HostRecords(tmp_path, "demo")
    with subprocess.Popen([sys.executable, "-c", TAKES_OFF, str(tmp_path)], env=environment) as module:
        wait_until(lambda: host.calls() or module.poll() is not None, "compose to be called")
        module.kill()
    assert [call.partition(" | ")[0][-5:] for call in host.calls()] == [" down"]
    with pytest.raises(DriftguardError, match="the lock within 0 s"), here.lock("another", 0):
        pass
    os.close(hangs)
    with here.lock("another", 60):
        pass


def test_an_overtaken_deployment_tells_compose_to_end_that_removes_networks(host: Host, hangs: int) -> None:
    def overtaken() -> None:
        raise DriftguardError("fence", "number 7", "number 8", "start a new deploy")

    with pytest.raises(DriftguardError, match="number 8"):
        remove_project(PROJECT, (host.lock,), SafePoint([overtaken]))
    assert len(host.calls()) == 1


def test_without_docker_the_remedy_says_what_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DriftguardError, match="Docker command line"):
        host.carry_out(recreate_b())
    assert host.engine.stopped == []


KEY = "-----BEGIN KEY-----\nline-one/line+one\r\nline two \"quoted\"\nshort\n-----END KEY-----\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fleet's directory with secrets, one of them beginning with another."""
    directory = tmp_path / "secrets" / "10001"
    directory.mkdir(parents=True)
    (tmp_path / "secrets" / ".key").write_text("the-marks-own-key")
    contents = {"a": "password1", "b": "password1234", "key": KEY, "odd": "p@ss/word:1%", "raw": "\udcff-not-utf8"}
    for name, text in contents.items():
        (directory / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return tmp_path


@pytest.mark.parametrize("line", [
    "password1", "x password1234 y", "redis://:p@ss/word:1%@h", "redis://:p%40ss%2Fword%3A1%25@h", "line-one/line+one",
    '{"key": "line two \\"quoted\\""}', 'line two "quoted"', "password1password1234",
])
def test_a_secret_is_masked_however_it_is_written(root: Path, line: str) -> None:
    found = masked(line, secret_values(root))
    assert "********" in found
    assert not any(part in found for part in ("password1", "234", "p@ss", "p%40ss", "line-one", "quoted"))


def test_what_is_no_secret_is_kept_and_made_visible(root: Path) -> None:
    secrets = secret_values(root)
    value = {"log": ["short", "\x1b[31mred\x07", "tab\tand\nline"], "count": 3, "none": None, "truth": True}
    assert masked(value, secrets) == {**value, "log": ["short", "?[31mred?", "tab\tand\nline"]}
    assert "the-marks-own-key" not in secrets


def test_a_fleet_without_secrets_has_none(tmp_path: Path) -> None:
    assert secret_values(tmp_path) == []
