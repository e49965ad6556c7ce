# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_version_assert: who says what is expected, and that nothing but a whole proof succeeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Optional

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FailedResult, Result
from ansible_collections.driftguard.workers.plugins.module_utils.record import Record, ReleaseRef
from ansible_collections.driftguard.workers.plugins.module_utils.registrations import (
    FIELDS,
    Snapshot,
    parse_registration,
)
from ansible_collections.driftguard.workers.plugins.module_utils.revisions import Revisions, release_json
from ansible_collections.driftguard.workers.plugins.module_utils.version_check import check_versions
from support.containers import CONTAINER_ID, IMAGE_ID, RELEASE_ID, SHA, FakeEngine, image, inspected_below
from support.release_data import release_data

OURS = ReleaseRef(RELEASE_ID, SHA)
OLD = ReleaseRef("ffffffffffff.000000000000", "f" * 40)
SERVICES: dict[str, Any] = {"extractor": {
    "variant": "base", "replicas": 1, "image": IMAGE_ID, "spec": "spec1", "grace": 30, "memory": 2**26}}


def record(*allowed: ReleaseRef, phase: str = "settled") -> Record:
    return Record("demo", 7, phase, allowed[-1], tuple(allowed))


class FakeRedis:
    """A fleet's record and the registration of its one worker."""

    def __init__(self) -> None:
        self.of_fleet: Optional[Record] = record(OURS)
        self.problem: Optional[DriftguardError] = None
        self.changes: dict[str, Any] = {}

    def record(self, _fleet: str) -> Optional[Record]:
        """The record, or the error that a damaged one is."""
        if self.problem:
            raise self.problem
        return self.of_fleet

    def registrations(self, _fleet: str) -> Snapshot:
        """The worker's."""
        values = {
            "gitSha": SHA, "buildDate": "2026-01-02T03:04:05Z", "startedAt": "2026-01-02T03:04:05Z", "pid": "1",
            "host": "host1", "service": "extractor", "containerId": CONTAINER_ID, "releaseId": RELEASE_ID,
            "state": "running", "heartbeatAt": "2026-01-02T03:04:05Z", **self.changes}
        return Snapshot(
            0.0, [parse_registration("extractor", CONTAINER_ID[:12], [values[name] for name in FIELDS], 9000)])


class Host:
    """A host on which everything is right: revision 7 proved, both records settled, one worker."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.revisions = Revisions(root / "demo")
        self.revisions.write(7, "# compose\n", release_json(release_data(), SERVICES))
        self.revisions.settle(self.revisions.load(7), 7)
        self.records = HostRecords(root, "demo")
        self.records.write(record(OURS))
        self.engine = FakeEngine([inspected_below(root)], [image()])
        self.redis = FakeRedis()
        self.options: dict[str, Any] = {
            "fleet": "demo", "host": "host1", "root": str(root), "hosts": ["host1"], "services": {"extractor": None},
            "defaults": {"memory": "64M"}, "placement": None, "expected_sha": None, "revision": "current",
            "check_record": True,
            "timeout": 0.0}

    def verify(self, **options: Any) -> Result:
        engine: Any = self.engine
        redis: Any = self.redis
        return check_versions({**self.options, **options}, engine, redis)

    def unproved(self, **options: Any) -> list[tuple[str, str]]:
        """Instance and verdict of each row that isn't fine."""
        with pytest.raises(FailedResult) as error:
            self.verify(**options)
        values = error.value.values
        assert (values["proved"], values["table"][-1].startswith("[OK]")) == (False, False)
        return [(row["instance"], row["verdict"]) for row in values["rows"] if row["verdict"] != "OK"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_is_right_is_proved(host: Host) -> None:
    values = host.verify().values
    assert (values["proved"], values["expected_sha"], values["expected_from"]) == (
        True, SHA, "the fleet's record in Redis")
    assert [row["verdict"] for row in values["rows"]] == ["OK"]
    assert values["record"]["target"] == {"release_id": RELEASE_ID, "sha": SHA}


def test_a_worker_that_says_something_else_is_not(host: Host) -> None:
    host.redis.changes["gitSha"] = "f" * 40
    assert host.unproved() == [("demo-workers-extractor-1", "STALE")]


def test_no_worker_at_all_is_not(host: Host) -> None:
    host.engine.containers.clear()
    assert ("extractor (1 of 1)", "MISSING") in host.unproved()


RECORDS: dict[str, tuple[Any, Any, list[str]]] = {
    "no record in Redis": (None, record(OURS), ["fleet record"]),
    "no record on the host": (record(OURS), None, ["host record"]),
    "Redis still rolls": (record(OLD, OURS, phase="rolling"), record(OURS), ["fleet record"]),
    "the host still rolls": (record(OURS), record(OLD, OURS, phase="rolling"), ["host record"]),
    "the host is settled on another": (record(OURS), record(OLD), ["host record"]),
    "the host allows other inputs": (
        record(OURS), record(ReleaseRef("0123456789ab.000000000000", SHA)), ["host record"]),
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_records_are_part_of_the_proof(host: Host, name: str) -> None:
    host.redis.of_fleet, of_host, wrong = RECORDS[name]
    _write(host, of_host)
    assert [instance for instance, verdict in host.unproved() if verdict == "RECORD"] == wrong


def test_an_unreadable_record_is_named_and_not_taken_for_none(host: Host) -> None:
    host.redis.problem = DriftguardError("Redis x", "a record", "something else", "DEL demo:release")
    (host.root / "demo/guard/guard.env").write_text("SCHEMA=9\n")
    assert host.unproved() == [("fleet record", "RECORD"), ("host record", "RECORD")]


def test_a_rollout_is_proved_before_its_record_is_settled(host: Host) -> None:
    host.redis.of_fleet = record(OLD)
    _write(host, record(OLD, OURS, phase="rolling"))
    assert host.verify(check_record=False, expected_sha=SHA).values["proved"]
    _write(host, record(OLD))
    assert host.unproved(check_record=False, expected_sha=SHA) == [("host record", "RECORD")]


def _write(host: Host, of_host: Optional[Record]) -> None:
    if of_host is not None:
        host.records.write(of_host)
    else:
        for name in ("guard.json", "guard.env"):
            (host.root / "demo" / "guard" / name).unlink()


@pytest.mark.parametrize("asked", [SHA, SHA.upper(), SHA[:7], SHA[:20].upper()])
def test_the_commit_may_be_named(host: Host, asked: str) -> None:
    values = host.verify(expected_sha=asked).values
    assert (values["expected_sha"], values["expected_from"]) == (SHA, "option expected_sha")


def test_another_commit_is_expected_in_vain(host: Host) -> None:
    assert host.unproved(expected_sha="e" * 40) == [
        ("fleet record", "RECORD"), ("host record", "RECORD"), ("demo-workers-extractor-1", "STALE")]


def _came_after(host: Host, proved: Mapping[str, Any]) -> None:
    """What runs is of revision 7, which a run has brought here; this host's proved one is another."""
    host.revisions.write(3, "# compose\n", release_json({**release_data(), **proved}, SERVICES))
    host.revisions.settle(host.revisions.load(3), 3)
    host.redis.of_fleet = record(OLD, OURS, phase="rolling")


@pytest.mark.parametrize("named", [True, False])
def test_what_a_run_brought_here_before_it_was_cut_off_is_told_from_what_it_did_not_reach(
    host: Host, named: bool,
) -> None:
    _came_after(host, {"sha": "f" * 40, "release_id": "ffffffffffff.000000000000"})
    host.revisions.write(9, "# compose\n", "damaged")
    asked = {"expected_sha": SHA} if named else {}
    assert host.unproved(**asked) == [("fleet record", "RECORD")]
    host.engine.containers[CONTAINER_ID] = {**inspected_below(host.root), "Image": "sha256:" + "e" * 64}
    assert ("demo-workers-extractor-1", "STALE") in host.unproved(**asked)


def test_of_two_releases_of_a_commit_it_is_compared_with_the_one_that_the_records_say(host: Host) -> None:
    _came_after(host, {"sha": "f" * 40, "release_id": "ffffffffffff.000000000000"})
    anew = {**release_data(), "release_id": f"{SHA[:12]}.999999999999"}
    host.revisions.write(8, "# compose\n", release_json(anew, SERVICES))
    assert host.unproved() == [("fleet record", "RECORD")]


@pytest.mark.parametrize(
    "asked",
    ["012345", "0" * 41, "HEAD", "main", "g" * 40, "eeeeeee", "٣" * 7, "0123456\n", " 0123456", "../etc/passwd"]
)
def test_what_names_no_commit(host: Host, asked: str) -> None:
    with pytest.raises(DriftguardError, match="option expected_sha"):
        host.verify(expected_sha=asked)


def test_a_prefix_of_two_commits_is_refused(host: Host) -> None:
    host.redis.of_fleet = record(ReleaseRef("0123456fffff.000000000000", "0123456" + "f" * 33))
    with pytest.raises(DriftguardError, match="0123456 fits 2"):
        host.verify(expected_sha="0123456")


def test_without_the_fleets_record_the_hosts_says_what_is_expected(host: Host) -> None:
    host.redis.of_fleet = None
    with pytest.raises(FailedResult) as error:
        host.verify()
    assert error.value.values["expected_from"] == "this host's record (the fleet has none in Redis)"
    _write(host, None)
    with pytest.raises(FailedResult) as error:
        host.verify()
    assert (error.value.values["expected_sha"], error.value.values["expected_from"]) == (
        SHA, "this host's proved revision (there is no record)")


def test_where_nobody_ever_deployed_nothing_is_proved(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.options["root"] = str(tmp_path / "elsewhere")
    host.redis.of_fleet = None
    assert {verdict for _instance, verdict in host.unproved()} == {"RECORD", "STALE"}
    host.engine.image_list[0]["Config"]["Labels"] = {}
    assert "OK" not in {verdict for _instance, verdict in host.unproved()}


def test_the_revision_says_what_should_run_where_the_inventory_is_not_asked(host: Host) -> None:
    assert host.verify(services=None).values["proved"]
    with pytest.raises(DriftguardError, match="option services"):
        host.verify(services=None, root=str(host.root / "elsewhere"))


def test_a_failure_names_the_first_problems_and_counts_the_rest(host: Host) -> None:
    with pytest.raises(FailedResult) as error:
        host.verify(services={"extractor": {"replicas": 8}})
    assert error.value.found.count("[MISSING]") == 5
    assert error.value.found.endswith("; and 2 more")
    assert error.value.subject == "fleet demo on host1"


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), -1.0])
def test_seconds_that_no_one_can_wait(host: Host, timeout: float) -> None:
    with pytest.raises(DriftguardError, match="option timeout"):
        host.verify(timeout=timeout)
