# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs over a lab's hosts said and left behind, held to what the hosts themselves are."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from support.fleet import Run, wait_for

from .fleet import LabFleet

__all__ = ["commits", "lasting", "lease_left", "rows_of", "states", "told_exactly", "told_the_truth", "working"]

AT_WORK = "[A]nsiballZ_|[a]sync_wrapper|[l]ab-python|[d]ocker[- ]compose"


def commits(fleet: LabFleet) -> dict[str, set[str]]:
    """The commits of a host's containers, in whatever state these are."""
    return {
        host: {one["OnHost"]["Config"]["Labels"]["org.opencontainers.image.revision"] for one in fleet.there(host)}
        for host in fleet.placement}


def told_the_truth(fleet: LabFleet, old: str, new: str, status: int) -> None:
    """What a run that is over said, and left as published, is so on the hosts."""
    record, runs = fleet.record(), commits(fleet)
    is_new = record.get("phase") == "settled" and record["target"]["sha"] == new
    if is_new:
        assert set.union(*runs.values()) == {new}, runs
    elif record:
        assert {release["sha"] for release in record["allowed"]} <= {old, new}
    if status == 0:
        assert is_new
        assert fleet.everywhere() == fleet.wanted(new)
    if record.get("phase") == "settled" and not is_new:
        # What is published is the old release: nothing else works, wherever it is.
        assert record["target"]["sha"] == old, record
        wait_for(lambda: states(fleet, new) <= {"fenced"}, "what isn't published to be fenced", 60)
    finished = [one["result"] for one in fleet.evidence() if (one["release"] or {}).get("sha") == new]
    assert "ok" not in finished or is_new
    if finished[-1:] == ["rolled back"]:
        assert fleet.everywhere() == fleet.wanted(old)


def states(fleet: LabFleet, sha: str, *hosts: str) -> set[str]:
    """What the instances of a commit say of themselves, on some hosts or all."""
    client = fleet.redis.client
    found = [client.hgetall(key) for key in client.scan_iter(match=f"{fleet.name}:worker:*:*:version")]
    return {one["state"] for one in found if one.get("gitSha") == sha and (not hosts or one["host"] in hosts)}


def lease_left(fleet: LabFleet) -> float:
    """Seconds for which nobody else gets the lease; 0 when it is free."""
    return max(0.0, float(fleet.redis.client.pttl(f"{fleet.name}:lock:deploy")) / 1000)


def rows_of(run: Run) -> set[tuple[str, str, str, str, str]]:
    """The rows of the tables that a run shows: service, instance, host, short SHA and verdict."""
    row = r"^ *(?:- )?'?(\S+) +(\S.*?) +(host\d) +(\w{7}|-) .*\[(\w+)\]'?$"
    return set(re.findall(row, run.output, re.MULTILINE))


def told_exactly(fleet: LabFleet, new: str, proved: Run) -> None:
    """A verify run names each container that isn't on the new release, and how many are missing where."""
    there = {(host, one["Name"].lstrip("/")): one for host in fleet.placement for one in fleet.there(host)}
    sha = {
        key: one["OnHost"]["Config"]["Labels"]["org.opencontainers.image.revision"] for key, one in there.items()}
    told = rows_of(proved)
    # Of what it had stopped and not yet removed, that comes first.
    stale = {(host, name) for _service, name, host, _sha, verdict in told if verdict in ("STALE", "STOPPED")}
    down = {key for key, one in there.items() if not one["State"]["Running"]}
    assert stale == {key for key in there if sha[key] != new} | down, proved.output
    wanted = Counter({
        (host, service): 2 if service == "beta" else 1
        for host, services in fleet.placement.items() for service in services})
    have = Counter((host, one["Config"]["Labels"]["io.driftguard.service"]) for (host, _name), one in there.items())
    missing = Counter((host, service) for service, _name, host, _sha, verdict in told if verdict == "MISSING")
    assert missing == wanted - have, proved.output
    assert "UNKNOWN" not in {verdict for *_rest, verdict in told}, proved.output
    is_new = (fleet.record()["phase"], fleet.record()["target"]["sha"]) == ("settled", new)
    assert (proved.status == 0) == (is_new and not stale and not missing), proved.output


def working(fleet: LabFleet) -> list[str]:
    """What Ansible started on the hosts and still runs there."""
    asked = ("sh", "-c", f"pgrep -af '{AT_WORK}' || true")
    return [line for host in fleet.placement for line in fleet.on(host, *asked).splitlines()]


def lasting(fleet: LabFleet) -> dict[str, Any]:
    """What a fleet's hosts and record are, but for what belongs to runs: where they meet, and who was there last."""
    runs = re.compile(rf"^/opt/driftguard/{fleet.name}(/state\S*)? .*\n?", re.MULTILINE)
    found = fleet.state()
    return {
        name: value if name == "record" else [runs.sub("", str(line)) for line in value]
        for name, value in found.items()}
