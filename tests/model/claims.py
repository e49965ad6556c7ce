# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold after every run, whatever happened in it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Optional

from model.interpreter import Ending
from model.world import FLEET, SERVICES, Model, Release

from driftguard_worker.decision import View
from driftguard_worker.records import ReleaseKey, view_of

__all__ = [
    "Before", "check_bad_release", "check_jobs", "check_lease", "check_run", "check_verified", "is_on", "last_word_on",
    "plan_of", "result_of", "settled_on",
]


@dataclass(frozen=True)
class Before:
    """How the world was before a run.

    :param proved: host → the release that was proved there last, empty where none was.
    """

    containers: dict[str, list[str]]
    proved: dict[str, str]
    releases: dict[str, list[str]]
    record: Optional[dict[str, Any]]
    settled: str
    published: str

    @classmethod
    def of(cls, model: Model) -> Before:
        """As it is now."""
        return cls(
            {host: sorted(engine.containers) for host, engine in model.engines.items()},
            {host: _proved(model, host) for host in model.engines},
            {host: model.running(host) for host in model.engines}, model.record(), settled_on(model), _published(model))


def result_of(ending: Ending) -> str:
    """The result that the run's evidence gives; empty where it left none."""
    found = [facts["__worker_fleet_evidence"] for facts in ending.facts.values() if "__worker_fleet_evidence" in facts]
    return str(next((one["result"] for one in found if "result" in one), ""))


def is_on(model: Model, release_id: str) -> list[str]:
    """What isn't as a success says: what the inventory demands runs the release, and the records say it."""
    wrong = []
    for host, placed in model.placement.items():
        wanted = sorted(release_id for service in placed for _number in range(SERVICES[service].get("replicas", 1)))
        found = model.running(host)
        if found != wanted:
            wrong.append(f"{host} runs {found}, not {wanted}")
        wrong += [
            f"{one.name} on {host} is {one.status}" for one in model.engines[host].containers.values()
            if not one.running]
        wrong += _host_record(model, host, release_id)
    record = model.record()
    if record is None or record["phase"] != "settled" or record["target"]["releaseId"] != release_id:
        wrong.append(f"the fleet's record is {record}")
    return wrong


def _published(model: Model) -> str:
    record = model.record()
    return str(record["target"]["releaseId"]) if record and record["phase"] == "settled" else ""


def settled_on(model: Model) -> str:
    """The release that the whole fleet is on, with all records; empty when there is no such release."""
    record = model.record()
    release_id = record["target"]["releaseId"] if record else ""
    return release_id if release_id and not is_on(model, release_id) else ""


def check_bad_release(model: Model, before: Before, ending: Ending, target: Release) -> None:
    """A bad release, and nothing else that goes wrong: the fleet is as it was, or empty when there was nothing."""
    said = "\n".join(ending.said)
    hit = any(
        target.badness.of(service, host) for host, placed in model.placement.items() for service in placed)
    canary, *others = model.placement
    if any(target.badness.of(service, canary) for service in model.placement[canary]):
        touched = [host for host in others if sorted(model.engines[host].containers) != before.containers[host]]
        assert not touched, f"the canary was bad, and {touched} touched\n{said}"
    if not hit:
        assert ending.status == 0, f"a good release failed\n{said}"
    elif before.settled and before.settled != target.release_id:
        assert result_of(ending) == "rolled back", f"{result_of(ending)}\n{said}"
        assert not is_on(model, before.settled), f"went back, but {is_on(model, before.settled)}\n{said}"
    elif before.record is None and not any(before.containers.values()):
        assert result_of(ending) == "rolled back", f"{result_of(ending)}\n{said}"
        assert not any(model.running(host) for host in model.engines), f"a failed first deploy left containers\n{said}"


def check_verified(model: Model, ending: Ending) -> None:
    """A verify run fails exactly when the fleet isn't on its record's release, or can't be reached."""
    said = "\n".join(ending.said)
    right = bool(settled_on(model)) and not model.cut and not any(one.dead for one in model.engines.values())
    lies = {one.badness for engine in model.engines.values() for one in engine.containers.values()} - {""}
    if not lies:
        assert (ending.status == 0) == right, f"verify says {ending.status}; on {settled_on(model)!r}\n{said}"


def _host_record(model: Model, host: str, release_id: str) -> list[str]:
    # A fence may leave the fleet on nothing, a release that has no image.
    sha = next((image.sha for image in model.images.values() if image.release_id == release_id), "")
    own = ReleaseKey(release_id, sha)
    content = model.workers.records.get(host)
    wrong = [] if view_of(content, own, FLEET) is View.ALLOWED else [f"the record of {host} doesn't allow {release_id}"]
    if b'"settled"' not in (content or b""):
        wrong.append(f"the record of {host} isn't settled")
    link = model.roots[host] / FLEET / "current"
    if not link.is_symlink() or release_id not in (link / "release.json").read_text(encoding="utf-8"):
        wrong.append(f"current of {host} is {os.readlink(link) if link.is_symlink() else None}")
    return wrong


def check_run(model: Model, before: Before, ending: Optional[Ending], target: Optional[Release], partly: bool) -> None:
    """Hold a run's ending to the world.

    :param ending: None for a run that was killed.
    :param target: what it went to, None where that was left to it.
    :param partly: whether it was limited to a part of the fleet.
    """
    check_jobs(model)
    if ending is None:
        return
    result, said = result_of(ending), "\n".join(ending.said)
    assert (ending.status == 0) == (result == "ok"), f"exit {ending.status}, result {result!r}\n{said}"
    if ending.status == 0:
        assert not partly, f"success with a part of the fleet\n{said}"
        release_id = target.release_id if target else (model.record() or {})["target"]["releaseId"]
        assert not is_on(model, release_id), f"success, but {is_on(model, release_id)}\n{said}"
    hosts = set(ending.facts)
    if partly and target is not None:
        assert _published(model) in ("", before.published), f"a part of the fleet was published\n{said}"
    if result == "failed":
        left = {host: sorted(model.engines[host].containers) for host in hosts}
        assert left == {host: before.containers[host] for host in hosts}, f"'failed' touched a container\n{said}"
    if result == "rolled back":
        _check_returned(model, before, ending, said)
    if result == "mixed" and target is not None and "nothing was published" in said:
        record = model.record()
        published = record is not None and record["phase"] == "settled" and (
            record["target"]["releaseId"] == target.release_id)
        was_there = before.record is not None and before.record["target"]["releaseId"] == target.release_id
        assert not published or was_there, f"'mixed' says that nothing was published\n{said}"


def _check_returned(model: Model, before: Before, ending: Ending, said: str) -> None:
    """Who had moved runs what was proved there before the run, or nothing when nothing was; nobody else was touched.

    A run takes up what an earlier one had published and not kept on the hosts any more.
    """
    moved = [host for host, facts in ending.facts.items() if facts.get("worker_outcome", {}).get("moved")]
    there = {release for host in moved for release in model.running(host)}
    assert len(there) <= 1 or not before.published, f"'rolled back' left {there}\n{said}"
    for host in ending.facts:
        if host in moved:
            runs, proved = set(model.running(host)), {before.proved[host]} - {""}
            took_up = {before.published} if _proved(model, host) == before.published != "" else proved
            assert runs in (proved, took_up), f"'rolled back' left {runs} on {host}, not {proved}\n{said}"
        else:
            containers = sorted(model.engines[host].containers)
            assert containers == before.containers[host], f"'rolled back' touched {host}, which hadn't moved\n{said}"


def _proved(model: Model, host: str) -> str:
    """The release of a host's current revision, empty where there is none."""
    link = model.roots[host] / FLEET / "current" / "release.json"
    return str(json.loads(link.read_text(encoding="utf-8"))["release"]["release_id"]) if link.exists() else ""


def check_jobs(model: Model) -> None:
    """No job since the last check started on a release that what was published by then didn't allow, nor unasked."""
    jobs, model.workers.jobs = model.workers.jobs, []
    model.workers.judged += jobs
    for job in jobs:
        flaw = model.publications.flaw(job.at, job.release, job.host)
        assert not flaw, f"a job started on {job.release} on {job.host}: {flaw}"


def check_lease(model: Model, ending: Ending) -> None:
    """The lease didn't run out in the middle of a run that reached Redis all the time, however long anything took."""
    own = {facts["worker_run"]["id"] for facts in ending.facts.values() if "worker_run" in facts}
    assert not own & set(model.lease.lapsed), "the lease ran out in the middle of a run\n" + "\n".join(ending.said)


def last_word_on(model: Model, release: Release) -> str:
    """What the history says of a release: empty where it was settled last, else what it was when it was fenced."""
    entries = (json.loads(entry) for entry in model.redis.lrange(f"{FLEET}:releases", 0, -1))
    return str(next((entry.get("fenced", "") for entry in entries if entry["releaseId"] == release.release_id), ""))


def plan_of(ending: Ending) -> dict[str, Any]:
    """What a run did, or says that it would do, on each host."""
    return {
        host: sorted(
            (step["action"], step["service"]) for step in (facts.get("__worker_fleet_rollout") or {}).get("steps", ()))
        for host, facts in ending.facts.items()}
