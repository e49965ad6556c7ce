# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_rollout with state kept: who is as it should be is held to it, and nobody else is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import rollout_wait
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FailedResult, Result
from ansible_collections.driftguard.workers.plugins.module_utils.record import Record, ReleaseRef
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_wait import Failure
from support.containers import RELEASE_ID, SHA
from support.rollout_host import DESIRED, Host

OWN = ReleaseRef(RELEASE_ID, SHA)
OLD = ReleaseRef(f"{'0' * 12}.{'1' * 12}", "0" * 40)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def keep(host: Host, check_mode: bool = False, **options: Any) -> Result:
    """What the module does with state kept."""
    return host.rollout(check_mode, state="kept", **options)


def settle(host: Host, record: Record | None = None) -> HostRecords:
    """Make revision 7 the proved one, with a host record that says so."""
    here = HostRecords(host.root, "demo")
    host.revisions.settle(host.revisions.load(7), 3)
    here.write(record or Record("demo", 3, "settled", OWN, (OWN,)))
    return here


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_host_that_is_as_it_should_be_is_held_to_it(host: Host, check_mode: bool) -> None:
    here = settle(host)
    result = keep(host, check_mode)
    assert (result.changed, result.values["kept"], result.values["moved"]) == (False, True, False)
    assert set(result.values["durations"]) == (set() if check_mode else {"recreate", "stabilize"})
    assert here.highest() == (3 if check_mode else 9)
    if not check_mode:
        with pytest.raises(DriftguardError, match="8"):
            here.check(8)


@pytest.mark.parametrize("check_mode", [False, True])
def test_who_has_a_container_to_change_is_planned_and_shows_nothing(host: Host, check_mode: bool) -> None:
    """Who changes it shows it."""
    settle(host)
    before = dict(host.engine.containers)
    result = keep(host, check_mode, services=["extractor"])
    assert (result.changed, result.values["kept"], result.before, result.after) == (True, False, "", "")
    assert [step["action"] for step in result.values["steps"]] == ["recreate"]
    assert host.engine.containers == before


def test_who_is_kept_has_to_be_stable(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(host)
    failure = Failure("extractor", "demo-workers-extractor-1", "its health check fails", 0, ["it said so"])
    monkeypatch.setattr(rollout_wait.Watch, "wait", lambda _watch: [failure])
    with pytest.raises(FailedResult, match="its health check fails; it said: it said so"):
        keep(host)


@pytest.mark.parametrize("record", [
    Record("demo", 3, "rolling", OWN, (OLD, OWN)), Record("demo", 3, "settled", OLD, (OLD,)),
    Record("demo", 3, "rolling", OWN, (OWN,))])
def test_who_isnt_settled_is_only_looked_at(host: Host, record: Record) -> None:
    here = settle(host, record)
    result = keep(host)
    assert (result.changed, result.values["kept"], result.values["durations"]) == (False, False, {})
    assert here.highest() == 3


def test_what_was_never_proved_isnt_kept(host: Host) -> None:
    HostRecords(host.root, "demo").write(Record("demo", 3, "settled", OWN, (OWN,)))
    assert not keep(host).values["kept"]
    settle(host)
    host.write(8, DESIRED["services"])
    assert not keep(host, revision="8").values["kept"]
    assert not keep(host, check_mode=True, revision="9", desired=DESIRED).values["kept"]


def test_what_has_to_change_is_planned_and_not_touched(host: Host) -> None:
    here = settle(host)
    host.engine.containers.clear()
    result = keep(host)
    assert (result.changed, result.values["kept"], result.values["moved"]) == (True, False, False)
    assert [step["action"] for step in result.values["steps"]] == ["create"]
    assert (host.engine.containers, result.values["durations"], here.highest()) == ({}, {}, 9)
