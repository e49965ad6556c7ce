# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run comes to: from the outcome of each host to what is done next and what is said last. Pure.

=========================  =======================================================================
hosts                      decision
=========================  =======================================================================
all good, all of the fleet publish
all good, part of it       keep: what was rolled stays, nothing is published, the run says mixed and fails
any bad or unreachable     rollback of every host that moved
a check-mode run           keep, nothing happened
a verify run               verify: nothing to decide, only to conclude
=========================  =======================================================================
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

GOOD = "good"
ROLLED_BACK = "rolled back"
PUBLISH = "publish"
ROLLBACK = "rollback"
KEEP = "keep"
VERIFY = "verify"


def decide(outcomes: Mapping[str, Mapping[str, Any]], fleet_hosts: Sequence[str], check_mode: bool) -> dict[str, Any]:
    """What to do once all batches are through.

    :param outcomes: host → ``status, stage, moved, message`` of each host in the run; a host without an outcome was never reached.
    :param fleet_hosts: all hosts of the fleet, also those the run was not limited to.
    """
    bad = sorted(host for host, outcome in outcomes.items() if outcome.get("status") != GOOD)
    partial = sorted(set(fleet_hosts) - set(outcomes))
    if check_mode:
        decision = KEEP
    elif bad:
        decision = ROLLBACK
    else:
        decision = KEEP if partial else PUBLISH
    return {
        "decision": decision, "bad": bad, "left_out": partial,
        "moved": sorted(host for host, outcome in outcomes.items() if outcome.get("moved")),
    }


def conclude(
    outcomes: Mapping[str, Mapping[str, Any]], fleet_hosts: Sequence[str], decision: str, published: bool, check_mode: bool,
) -> dict[str, Any]:
    """What the run is in the end: its result, whether it failed, and a sentence for each host that matters.

    Result is one of ``ok``, ``predicted``, ``failed`` (nothing was touched), ``not proved``, ``rolled back`` and ``mixed``.
    """
    facts = decide(outcomes, fleet_hosts, check_mode)
    stuck = sorted(host for host in facts["moved"] if outcomes[host].get("status") not in (GOOD, ROLLED_BACK))
    if decision == VERIFY:
        result = "not proved" if facts["bad"] else "ok"
    else:
        result = _result(facts, decision, published, stuck, outcomes, check_mode)
    lines = [f"{host}: {outcomes[host].get('stage', 'reach')}: {outcomes[host].get('message') or 'no answer'}" for host in facts["bad"]]
    if result == "mixed":
        lines += [f"{host}: may run either release" for host in stuck]
        lines += [f"{host}: was left out of this run and keeps what it runs" for host in facts["left_out"]]
    return {"result": result, "failed": result not in ("ok", "predicted"), "message": _sentence(result), "lines": lines}


def _result(
    facts: Mapping[str, Any], decision: str, published: bool, stuck: Sequence[str], outcomes: Mapping[str, Mapping[str, Any]], check_mode: bool,
) -> str:
    if check_mode:
        return "failed" if facts["bad"] else "predicted"
    if decision == PUBLISH and published and not facts["bad"]:
        return "ok"
    if stuck or decision == KEEP or (decision == PUBLISH and facts["moved"]):
        return "mixed"
    return ROLLED_BACK if any(outcome.get("status") == ROLLED_BACK for outcome in outcomes.values()) else "failed"


def _sentence(result: str) -> str:
    return {
        "ok": "Every worker of the fleet runs the release, proved",
        "predicted": "Check mode: nothing was changed",
        "failed": "The run failed before it touched any container",
        ROLLED_BACK: "The run failed; every host that had moved is back on what it ran before, proved",
        "not proved": "Not every worker of the fleet is proved",
        "mixed": "The fleet may be on more than one release: nothing was published",
    }[result]
