# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release record: which releases may run. Pure; host_record.py and redis_gateway.py store it.

=====================  =====================  ==================================================================
record now             asked                  record then
=====================  =====================  ==================================================================
none                   roll to T              rolling T; allowed: what is known to run, T (first deploy: T alone)
settled X              roll to X              the same, not even a new generation
settled X              roll to T              rolling T; allowed: X, T
rolling X {A … X}      roll to X              the same: a run that was killed is being taken up again
rolling X {A B … X}    roll to T              rolling T; allowed: A, those of B … X that still run, T
settled X              settle X               the same
any                    settle T               settled T; allowed: T alone
any                    roll, only S           rolling T; allowed: S, as it was before a run that failed
any                    fence B                allowed: the others; see :func:`without`
=====================  =====================  ==================================================================

*A*, always first in ``allowed``, is the release that was settled last: it stays until something is settled, since a
host out of reach may run it and a rollback goes to it. The others stay while something runs them, so that a
deploy over the ruins of another fences nobody before the recreate, and no longer, so that the list can't grow.
Where the caller can't say what runs, the previous target stays and older ones go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Collection, Iterable, Optional, Sequence

from .errors import DriftguardError
from .names import RELEASE_PATTERN, SHA_PATTERN
from .untrusted import MAX_NUMBER, clean, json_object, whole_number

SCHEMA = 1
ROLLING = "rolling"
SETTLED = "settled"
PHASES = (ROLLING, SETTLED)
MAX_ALLOWED = 32


@dataclass(frozen=True)
class ReleaseRef:
    """A release: its id and the full commit SHA it was built from."""

    release_id: str
    sha: str

    def __str__(self) -> str:
        return f"{self.release_id}:{self.sha}"

    def as_json(self) -> dict[str, str]:
        """The shape in guard.json and in Redis."""
        return {"releaseId": self.release_id, "sha": self.sha}

    def as_result(self) -> dict[str, str]:
        """The shape in a module's options and return values."""
        return {"release_id": self.release_id, "sha": self.sha}


#: Stands where no release may run: a record that allows it alone parks the whole fleet. No commit has this SHA.
NOTHING = ReleaseRef("0" * 12 + "." + "0" * 12, "0" * 40)


@dataclass(frozen=True)
class Record:
    """Which releases of a fleet may run, on one host (guard.json) or in the whole fleet (Redis).

    :param generation: number of the deploy that wrote it; only orders deploys.
    :param phase: ``rolling`` or ``settled``.
    :param target: where the deploy goes, or went.
    :param allowed: what may run; the target among them, alone when settled.
    """

    fleet: str
    generation: int
    phase: str
    target: ReleaseRef
    allowed: tuple[ReleaseRef, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape in guard.json and in Redis."""
        return {
            "schema": SCHEMA, "fleet": self.fleet, "generation": self.generation, "phase": self.phase,
            "target": self.target.as_json(), "allowed": [release.as_json() for release in self.allowed],
        }

    def as_result(self) -> dict[str, Any]:
        """The shape in a module's return values."""
        return {
            "fleet": self.fleet, "generation": self.generation, "phase": self.phase,
            "target": self.target.as_result(), "allowed": [release.as_result() for release in self.allowed],
        }

    def allows(self, release_id: str, sha: str) -> bool:
        """Whether an instance of this release and commit may start and go on."""
        return ReleaseRef(release_id, sha) in self.allowed


def rolling(
    current: Optional[Record], fleet: str, target: ReleaseRef, generation: int,
    running: Optional[Iterable[ReleaseRef]] = None,
) -> Record:
    """The record while a deploy is under way; see the table above.

    :param current: the record now; returned as it is when the target is already its target.
    :param running: releases that containers or registrations still run, None when that isn't known.
    """
    if current is not None and current.target == target:
        return current
    kept = list(dict.fromkeys(running or ())) if current is None else _kept(current, running)
    # Of too many, those go that were allowed first: hosts run what came last. What they all could go back to stays.
    last = kept if len(kept) < MAX_ALLOWED else [kept[0], *kept[2 - MAX_ALLOWED:]]
    allowed = kept if target in kept else [*last, target]
    return Record(fleet, generation, ROLLING, target, tuple(allowed))


def rolling_again(
    current: Optional[Record], fleet: str, target: ReleaseRef, allowed: Sequence[ReleaseRef], generation: int,
) -> Record:
    """A record as it was before a run that failed; the current one when it says so already.

    :raises DriftguardError: it isn't one that a deploy could have left.
    """
    wanted = Record(fleet, generation, ROLLING, target, tuple(allowed))
    flaw = _flaw(wanted.as_json(), fleet)
    if flaw:
        raise DriftguardError(
            "option allowed", "releases that a record of this fleet allowed, the target among them", flaw,
            "give allowed and target as worker_release returned them")
    return current if current is not None and replace(current, generation=generation) == wanted else wanted


def settled(current: Optional[Record], fleet: str, target: ReleaseRef, generation: int) -> Record:
    """The record once a release alone may run; the current one when it says so already."""
    wanted = Record(fleet, generation, SETTLED, target, (target,))
    if current is not None and (current.phase, current.allowed) == (wanted.phase, wanted.allowed):
        return current
    return wanted


def without(current: Record, bad: Collection[ReleaseRef], generation: int, fallback: Optional[ReleaseRef]) -> Record:
    """The record with some releases fenced; the current one when it allows none of them.

    ===============================  ==========================================================
    left of ``allowed``              record then
    ===============================  ==========================================================
    several                          rolling; target as it was, or the last of those that are left
    one                              settled on it
    none, a fallback                 settled on the fallback
    none, no fallback                rolling :data:`NOTHING`: the whole fleet parks
    ===============================  ==========================================================
    """
    if not set(bad) & set(current.allowed):
        return current
    left = tuple(release for release in current.allowed if release not in bad and release != NOTHING)
    allowed = left or (fallback or NOTHING,)
    target = current.target if current.target in allowed else allowed[-1]
    is_one = len(allowed) == 1 and allowed != (NOTHING,)
    return Record(current.fleet, generation, SETTLED if is_one else ROLLING, target, allowed)


def check_generation(subject: str, generation: int, seen: int) -> None:
    """Refuse a deploy that a later one has overtaken.

    :param seen: the highest deployment number known at the place that ``subject`` names.
    :raises DriftguardError: the number is lower, or none.
    """
    if not 1 <= generation <= MAX_NUMBER:
        raise DriftguardError(
            "option generation", f"a number from 1 to {MAX_NUMBER}", str(generation),
            "use the number that worker_lock returned")
    if generation < seen:
        raise DriftguardError(
            subject, f"no deploy after number {generation}", f"number {seen} was there",
            "a later deploy has overtaken this one, nothing was changed; start a new deploy")


def render_json(record: Record) -> str:
    """guard.json: keys sorted, two spaces, a newline at the end."""
    return json.dumps(record.as_json(), sort_keys=True, indent=2) + "\n"


def render_compact(record: Record) -> str:
    """The record as it is stored in Redis and announced: one line."""
    return json.dumps(record.as_json(), sort_keys=True, separators=(",", ":"))


def render_env(record: Record) -> str:
    """guard.env: the same for a reader without JSON, one ``KEY=value`` a line."""
    head = [f"SCHEMA={SCHEMA}", f"FLEET={record.fleet}", f"GENERATION={record.generation}", f"PHASE={record.phase}"]
    return "\n".join([*head, f"TARGET={record.target}", *(f"ALLOWED={release}" for release in record.allowed)]) + "\n"


def parse_record(text: str, subject: str, fleet: str, remedy: str) -> Record:
    """A record from text that anybody may have written.

    :param subject: the file or key it comes from; with ``remedy`` for the failure.
    :raises DriftguardError: it isn't a record of this fleet.
    """
    flaw = "not a JSON object of at most 64 KiB with no key twice"
    document = json_object(text)
    if document is not None:
        flaw = _flaw(document, fleet)
        if not flaw:
            return _record(document)
    raise DriftguardError(subject, f"a release record of fleet {fleet}", f"{flaw}: {clean(text)!r}", remedy)


def parse_release(value: Any) -> Optional[ReleaseRef]:
    """A release from ``{"releaseId": …, "sha": …}``, None when it isn't one."""
    if not isinstance(value, dict):
        return None
    return release_ref(value.get("releaseId"), value.get("sha"))


def release_ref(release_id: Any, sha: Any) -> Optional[ReleaseRef]:
    """A release from its two parts, None unless both are well formed and belong together."""
    if not (isinstance(release_id, str) and RELEASE_PATTERN.match(release_id)):
        return None
    if not (isinstance(sha, str) and SHA_PATTERN.match(sha) and release_id.startswith(sha[:12])):
        return None
    return ReleaseRef(release_id, sha)


def _kept(current: Record, running: Optional[Iterable[ReleaseRef]]) -> list[ReleaseRef]:
    alive = {current.target} if running is None else set(running)
    first, rest = current.allowed[0], current.allowed[1:]
    return [first, *(release for release in rest if release in alive)]


def _flaw(document: dict[str, Any], fleet: str) -> str:
    allowed = document.get("allowed")
    rules = (
        (whole_number(document.get("schema")) == SCHEMA, f"schema isn't {SCHEMA}"),
        (document.get("fleet") == fleet, "it names another fleet"),
        (whole_number(document.get("generation"), least=1) is not None, "generation isn't a positive whole number"),
        (document.get("phase") in PHASES, f"phase is neither {' nor '.join(PHASES)}"),
        (parse_release(document.get("target")) is not None, "target isn't a release with its SHA"),
        (_is_list_of_releases(allowed), f"allowed isn't a list of 1 to {MAX_ALLOWED} different releases"),
    )
    broken = [flaw for holds, flaw in rules if not holds]
    if broken:
        return broken[0]
    return _contradiction(_record(document))


def _contradiction(record: Record) -> str:
    if record.target not in record.allowed:
        return "the target isn't allowed"
    if record.phase == SETTLED and len(record.allowed) > 1:
        return "it is settled, yet allows more than the target"
    return ""


def _is_list_of_releases(value: Any) -> bool:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_ALLOWED:
        return False
    releases = [parse_release(item) for item in value]
    return None not in releases and len(set(releases)) == len(releases)


def _record(document: dict[str, Any]) -> Record:
    target = document["target"]
    return Record(
        document["fleet"], document["generation"], document["phase"], ReleaseRef(target["releaseId"], target["sha"]),
        tuple(ReleaseRef(item["releaseId"], item["sha"]) for item in document["allowed"]))
