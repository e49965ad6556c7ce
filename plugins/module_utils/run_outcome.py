# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run comes to: from the outcome of each host to what is done next and what is said last. Pure.

==========================  ======================================================================================
hosts                       decision
==========================  ======================================================================================
all good, all of the fleet  publish
all good, part of it        keep: what was rolled stays, nothing is published, the run says mixed and fails
any bad or unreachable      rollback of every host that moved
a check-mode run            keep, nothing happened
a verify run                verify: nothing to decide, only to conclude; part of the fleet proves nothing of the whole
a prune run                 prune: nothing to decide; what was removed on one host needs nothing of the others
a fence run                 fence: nothing to decide; part of the fleet, or an instance that is silent, confirms nothing
==========================  ======================================================================================
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

GOOD = "good"
PUBLISH = "publish"
ROLLBACK = "rollback"
KEEP = "keep"
VERIFY = "verify"
FENCE = "fence"
PRUNE = "prune"

OK = "ok"
PREDICTED = "predicted"
FAILED = "failed"
ROLLED_BACK = "rolled back"
NOT_PROVED = "not proved"
MIXED = "mixed"
UNSETTLED = "unsettled"
FENCED = "fenced"
NOT_CONFIRMED = "not confirmed"
PRUNED = "pruned"


Outcomes = Mapping[str, Mapping[str, Any]]


def decide(outcomes: Outcomes, fleet_hosts: Sequence[str], check_mode: bool) -> dict[str, Any]:
    """What to do once all batches are through.

    :param outcomes: host → ``status, stage, moved,
    message`` of each host in the run; a host without an outcome was never
        reached.
    :param fleet_hosts: all hosts of the fleet, also those the run was not limited to.
    """
    bad = sorted(host for host, outcome in outcomes.items() if _status(outcome) != GOOD)
    partial = sorted(set(fleet_hosts) - set(outcomes))
    whole = KEEP if partial or check_mode or not outcomes else PUBLISH
    return {
        "decision": ROLLBACK if bad and not check_mode else whole, "bad": bad, "left_out": partial,
        "moved": sorted(host for host, outcome in outcomes.items() if outcome and outcome.get("moved")),
    }


def conclude(
    outcomes: Outcomes, fleet_hosts: Sequence[str], decision: str, published: bool, check_mode: bool,
) -> dict[str, Any]:
    """What the run is in the end: its result, whether it failed, and a sentence for each host that matters.

    Result is one of ``ok``, ``predicted``, ``failed`` (nothing was touched), ``not proved``, ``rolled back``,
    ``mixed``, ``unsettled`` (published, but a host didn't finish), ``fenced``,
    ``not confirmed`` and ``pruned``.
    """
    facts = decide(outcomes, fleet_hosts, check_mode)
    # Decided to go back: a host that still counts as good was not reached for it, and runs the new release.
    safe = (ROLLED_BACK,) if decision == ROLLBACK else (GOOD, ROLLED_BACK)
    stuck = [host for host in facts["moved"] if _status(outcomes[host]) not in safe]
    done = bool(outcomes) and not facts["bad"]
    if decision == VERIFY:
        result = OK if done and not facts["left_out"] else NOT_PROVED
    elif check_mode:
        result = PREDICTED if done else FAILED
    elif decision == FENCE and published:
        result = FENCED if done and not facts["left_out"] else NOT_CONFIRMED
    elif decision == FENCE:
        result = FAILED
    elif decision == PRUNE:
        result = PRUNED if done else FAILED
    elif decision == PUBLISH and published:
        result = OK if done and not facts["left_out"] else UNSETTLED
    else:
        result = _unpublished(outcomes, facts, decision, stuck)
    return {
        "result": result, "failed": result not in (OK, PREDICTED, FENCED, PRUNED), "message": SENTENCES[result],
        "lines": _lines(outcomes, facts, result, stuck)}


def _unpublished(outcomes: Outcomes, facts: Mapping[str, Any], decision: str, stuck: Sequence[str]) -> str:
    if stuck or (decision == KEEP and outcomes) or (decision == PUBLISH and facts["moved"]):
        return MIXED
    return ROLLED_BACK if any(_status(outcome) == ROLLED_BACK for outcome in outcomes.values()) else FAILED


def _lines(outcomes: Outcomes, facts: Mapping[str, Any], result: str, stuck: Sequence[str]) -> list[str]:
    lines = []
    for host in facts["bad"]:
        outcome = outcomes[host] or {}
        lines.append(f"{host}: {outcome.get('stage') or 'reach'}: {outcome.get('message') or 'no answer'}")
    if result == MIXED:
        lines += [f"{host}: may run either release" for host in stuck]
    if result in (MIXED, NOT_PROVED, PREDICTED, NOT_CONFIRMED):
        lines += [f"{host}: was left out of this run and keeps what it runs" for host in facts["left_out"]]
    return lines


def _status(outcome: Optional[Mapping[str, Any]]) -> str:
    return str((outcome or {}).get("status"))


SENTENCES = {
    OK: "Every worker of the fleet runs the release, proved",
    PREDICTED: "Check mode: nothing was changed",
    FAILED: "The run failed before it touched any container",
    ROLLED_BACK: "The run failed; every host that had moved is back on what it ran before, proved",
    NOT_PROVED: "Not every worker of the fleet is proved",
    MIXED: "The fleet may be on more than one release: nothing was published",
    FENCED: "The release is fenced: every instance of it has confirmed, or is gone",
    NOT_CONFIRMED: "The release is fenced, but not everything has confirmed it",
    PRUNED: "What no host needs any more is removed",
    UNSETTLED: "The release was published, but not every host finished: deploy again",
}
