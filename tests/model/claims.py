# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold after every run, whatever happened in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Optional

from driftguard_worker.decision import View
from driftguard_worker.records import ReleaseKey, view_of

from model.interpreter import Ending
from model.world import FLEET, SERVICES, Model, Release

__all__ = ["Before", "check_jobs", "check_run", "is_on", "result_of"]


@dataclass(frozen=True)
class Before:
    """How the world was before a run."""

    containers: dict[str, list[str]]
    releases: dict[str, list[str]]
    jobs: int

    @classmethod
    def of(cls, model: Model) -> Before:
        """As it is now."""
        return cls(
            {host: sorted(engine.containers) for host, engine in model.engines.items()},
            {host: model.running(host) for host in model.engines}, len(model.workers.jobs))


def result_of(ending: Ending) -> str:
    """The result that the run's evidence gives; empty where it left none."""
    found = [facts["__worker_fleet_evidence"] for facts in ending.facts.values() if "__worker_fleet_evidence" in facts]
    return str(next((one["result"] for one in found if "result" in one), ""))


def is_on(model: Model, release_id: str) -> list[str]:
    """What isn't as a success says: every container that the inventory demands runs the release, and the records say it."""
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


def _host_record(model: Model, host: str, release_id: str) -> list[str]:
    own = ReleaseKey(release_id, next(image.sha for image in model.images.values() if image.release_id == release_id))
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
    check_jobs(model, before)
    if ending is None:
        return
    result, said = result_of(ending), "\n".join(ending.said)
    assert (ending.status == 0) == (result == "ok"), f"exit {ending.status}, result {result!r}\n{said}"
    if ending.status == 0:
        assert not partly, f"success with a part of the fleet\n{said}"
        release_id = target.release_id if target else (model.record() or {})["target"]["releaseId"]
        assert not is_on(model, release_id), f"success, but {is_on(model, release_id)}\n{said}"
        _check_number(model, ending)
    hosts = set(ending.facts)
    if result == "failed":
        left = {host: sorted(model.engines[host].containers) for host in hosts}
        assert left == {host: before.containers[host] for host in hosts}, f"'failed' touched a container\n{said}"
    if result == "rolled back":
        now = {host: sorted(set(model.running(host))) for host in hosts}
        then = {host: sorted(set(before.releases[host])) for host in hosts}
        assert now == then or partly, f"'rolled back' left {now}, before it was {then}\n{said}"
    if result == "mixed" and target is not None:
        record = model.record()
        published = record is not None and record["phase"] == "settled" and (
            record["target"]["releaseId"] == target.release_id)
        was_there = all(set(before.releases[host]) <= {target.release_id} for host in hosts)
        assert not published or was_there, f"'mixed' says that nothing was published\n{said}"


def _check_number(model: Model, ending: Ending) -> None:
    """Who ends in success was the last to begin."""
    own = max(int(facts.get("__worker_fleet_lease", {}).get("generation") or 0) for facts in ending.facts.values())
    given_out = int(model.redis.get(f"{FLEET}:generation") or 0)
    assert own >= given_out, f"success of deploy {own}, though {given_out} had begun"


def check_jobs(model: Model, before: Before) -> None:
    """No job started on a release that the published record didn't allow."""
    for job in model.workers.jobs[before.jobs:]:
        release = next(image for image in model.images.values() if image.release_id == job.release)
        view = view_of(job.record, ReleaseKey(release.release_id, release.sha), FLEET)
        assert view in (View.ALLOWED, View.MISSING), f"a job started on {job.release}: the record said {view.value}"


def plan_of(ending: Ending) -> dict[str, Any]:
    """What a run did, or says that it would do, on each host."""
    return {
        host: sorted(
            (step["action"], step["service"]) for step in (facts.get("__worker_fleet_rollout") or {}).get("steps", ()))
        for host, facts in ending.facts.items()}
