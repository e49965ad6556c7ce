# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run comes to: from the outcome of each host to what is done next and what is said last. Pure.

==========================  ======================================================================================
hosts                       decision
==========================  ======================================================================================
all good, all of the fleet  publish
all good, part of it        keep: what was rolled stays, nothing is published, the run says mixed and fails
any bad or unreachable      by ``worker_on_failure``: *fleet* is a rollback of every host that moved, *host* of those
                            that are bad, *stop* of none; the last two leave the fleet mixed, and say so
only unreachable ones       the same, or by ``worker_unreachable: continue`` publish: what they run is fenced through
                            Redis; the run is unsettled, names them and fails. Not where one was lost in its own roll:
                            what is bad enough may take a host with it
a check-mode run            keep, nothing happened
a verify run                verify: nothing to decide, only to conclude; part of the fleet proves nothing of the whole
a prune run                 prune: nothing to decide; what was removed on one host needs nothing of the others
a fence run                 fence: nothing to decide; part of the fleet, or an instance that is silent, confirms nothing
==========================  ======================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

GOOD = "good"
GOING = "going"
UNREACHABLE = "unreachable"
STOPPED = "stopped"  # nothing runs there: what ran before wasn't allowed any more
PUBLISH = "publish"
ROLLBACK = "rollback"
STOP = "stop"
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


@dataclass(frozen=True)
class Policy:
    """What the inventory wants when something goes wrong.

    :param on_failure: ``fleet``, ``host`` or ``stop``.
    :param unreachable: ``fail`` or ``continue``.
    """

    on_failure: str = "fleet"
    unreachable: str = "fail"


@dataclass(frozen=True)
class End:
    """How a run ended.

    :param decision: what was decided, and done.
    :param published: the fleet's record is settled on the run's release.
    :param settled_on: the release that the fleet's record alone allows now, empty when it allows several.
    :param parted: hosts that went back run another release than those that had nothing to change.
    """

    decision: str
    published: bool = False
    settled_on: str = ""
    parted: bool = False


def decide(
    outcomes: Outcomes, fleet_hosts: Sequence[str], check_mode: bool, policy: Policy = Policy(),
) -> dict[str, Any]:
    """What to do once all batches are through.

    :param outcomes: host → ``status, stage, moved, through, message`` of each host in the run; a host without an
        outcome was never reached. One that is ``through`` its roll was proved then.
    :param fleet_hosts: all hosts of the fleet, also those the run was not limited to.
    :returns: ``decision``; the hosts that are ``bad``, ``away`` (those of them that can't be reached), ``left_out`` of
        the run and ``moved``; and ``back``, those that have to go back.
    """
    bad = sorted(host for host, outcome in outcomes.items() if _status(outcome) != GOOD)
    away = [host for host in bad if _status(outcomes[host]) == UNREACHABLE]
    moved = sorted(host for host, outcome in outcomes.items() if outcome and outcome.get("moved"))
    left_out = sorted(set(fleet_hosts) - set(outcomes))
    lost = [host for host in away if outcomes[host].get("moved") and not outcomes[host].get("through")]
    spared = away if policy.unreachable == "continue" and not lost and len(away) < len(outcomes) else []
    decision, back = _decision(bad, spared, moved, policy)
    if check_mode or not outcomes:
        decision, back = KEEP, []
    elif decision == PUBLISH and left_out:
        decision = KEEP
    return {"decision": decision, "bad": bad, "away": away, "left_out": left_out, "moved": moved, "back": back}


def _decision(
    bad: Sequence[str], spared: Sequence[str], moved: Sequence[str], policy: Policy,
) -> tuple[str, list[str]]:
    if not set(bad) - set(spared):
        return PUBLISH, []
    if policy.on_failure == "stop" and moved:
        return STOP, []
    return ROLLBACK, [host for host in moved if policy.on_failure == "fleet" or host in bad]


def conclude(outcomes: Outcomes, fleet_hosts: Sequence[str], end: End, check_mode: bool) -> dict[str, Any]:
    """What the run is in the end: its result, whether it failed, and a sentence for each host that matters.

    Result is one of ``ok``, ``predicted``, ``failed`` (nothing was touched), ``not proved``, ``rolled back``,
    ``mixed``, ``unsettled`` (published, but a host didn't finish), ``fenced``,
    ``not confirmed`` and ``pruned``.
    """
    facts = decide(outcomes, fleet_hosts, check_mode)
    # Decided to go back: a host that still counts as good was not reached for it, and runs the new release.
    safe = (ROLLED_BACK,) if end.decision == ROLLBACK else (GOOD, ROLLED_BACK)
    stuck = [host for host in facts["moved"] if _status(outcomes[host]) not in safe]
    done = bool(outcomes) and not facts["bad"]
    if end.decision == VERIFY:
        result = OK if done and not facts["left_out"] else NOT_PROVED
    elif check_mode:
        result = PREDICTED if done else FAILED
    elif end.decision == FENCE and end.published:
        result = FENCED if done and not facts["left_out"] else NOT_CONFIRMED
    elif end.decision == FENCE:
        result = FAILED
    elif end.decision == PRUNE:
        result = PRUNED if done else FAILED
    elif end.decision == PUBLISH and end.published:
        result = OK if done and not facts["left_out"] else UNSETTLED
    else:
        result = MIXED if end.parted else _unpublished(outcomes, facts, end.decision, stuck)
    message = SENTENCES[result]
    if result == MIXED:
        message += PUBLISHED_FIRST if end.published else UNPUBLISHED
    return {
        "result": result, "failed": result not in (OK, PREDICTED, FENCED, PRUNED), "message": message,
        "lines": _lines(outcomes, facts, result, stuck, end)}


def _unpublished(outcomes: Outcomes, facts: Mapping[str, Any], decision: str, stuck: Sequence[str]) -> str:
    if stuck or (decision == KEEP and outcomes) or (decision in (PUBLISH, STOP) and facts["moved"]):
        return MIXED
    return ROLLED_BACK if any(_status(outcome) == ROLLED_BACK for outcome in outcomes.values()) else FAILED


def _lines(
    outcomes: Outcomes, facts: Mapping[str, Any], result: str, stuck: Sequence[str], end: End,
) -> list[str]:
    lines = [f"{host}: {_told(outcomes[host] or {})}" for host in facts["bad"]]
    if result == MIXED:
        fenced = f"; what isn't {end.settled_on} is fenced there" if end.settled_on else ""
        moved = _moved_on(outcomes, stuck, facts, end)
        lines += [f"{host}: {_may_run(_status(outcomes[host]), fenced)}" for host in moved]
    if result == UNSETTLED:
        lines += [f"{host}: what runs there on another release is fenced once it reads Redis" for host in facts["away"]]
    if result in (MIXED, NOT_PROVED, PREDICTED, NOT_CONFIRMED):
        lines += [f"{host}: was left out of this run and keeps what it runs" for host in facts["left_out"]]
    return lines


def _told(outcome: Mapping[str, Any]) -> str:
    """Stage and reason of a host that isn't good."""
    if _status(outcome) == GOING and not outcome.get("moved"):
        return f"{outcome.get('stage')}: not rolled, since another host failed"
    reason = "back on what it ran before, since another host failed" if _status(outcome) == ROLLED_BACK else "no answer"
    return f"{outcome.get('stage') or 'reach'}: {outcome.get('message') or reason}"


def _moved_on(outcomes: Outcomes, stuck: Sequence[str], facts: Mapping[str, Any], end: End) -> list[str]:
    """Hosts to speak of when the fleet is mixed: they aren't back, whether or not that was the policy."""
    there = outcomes if end.parted else facts["moved"]
    return sorted({*stuck, *(host for host in there if _status(outcomes[host]) == GOOD)})


def _may_run(status: str, fenced: str) -> str:
    if status == STOPPED:
        return "runs nothing"
    return ("runs the new release" if status == GOOD else "may run either release") + fenced


def _status(outcome: Optional[Mapping[str, Any]]) -> str:
    return str((outcome or {}).get("status"))


SENTENCES = {
    OK: "Every worker of the fleet runs the release, proved",
    PREDICTED: "Check mode: nothing was changed",
    FAILED: "The run failed before it touched any container",
    ROLLED_BACK: "The run failed; every host that had moved is back on what it ran before, proved",
    NOT_PROVED: "Not every worker of the fleet is proved",
    MIXED: "The fleet may be on more than one release",
    FENCED: "The release is fenced: every instance of it has confirmed, or is gone",
    NOT_CONFIRMED: "The release is fenced, but not everything has confirmed it",
    PRUNED: "What no host needs any more is removed",
    UNSETTLED: "The release was published, but not every host finished: deploy again",
}
UNPUBLISHED = ": nothing was published"
PUBLISHED_FIRST = ": the new one was published before the rollout"
