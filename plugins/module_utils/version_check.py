# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_version_assert does: settles what is expected, proves one host, and says it as rows and as a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

from . import verdicts
from .engine import Engine
from .errors import DriftguardError
from .fleet_spec import Service, placed, read_services
from .guard_command import EXEC
from .host_record import HostRecords
from .module_base import FailedResult, Result
from .names import guard_directory
from .proof import Row, is_proved
from .proof_gather import Place, failing, prove_host, repositories_of, wanted_services
from .proof_table import table
from .record import SETTLED, Record
from .redis_gateway import RedisGateway
from .release_info import Release
from .revisions import Revision, Revisions
from .untrusted import check_seconds

MIN_SHA_PREFIX = 7
SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Expectation:
    """The commit that is expected, and who says so."""

    sha: str
    source: str
    release: Optional[Release]


@dataclass(frozen=True)
class Records:
    """The fleet's record and this host's; None where there is none, and what was unreadable as rows."""

    fleet: Optional[Record]
    host: Optional[Record]
    rows: tuple[Row, ...]


def check_versions(
    options: Mapping[str, Any], engine: Engine, redis: RedisGateway, safe_point: Callable[[], None] = lambda: None,
) -> Result:
    """Prove one host.

    :param options: the module's options.
    :param safe_point: called between two looks; raises when nobody waits for the proof any more.
    :raises FailedResult: not proved; carries the rows.
    """
    fleet, host, root = options["fleet"], options["host"], Path(options["root"]) / options["fleet"]
    check_seconds("timeout", options["timeout"])
    revisions = Revisions(root)
    revision = _revision(revisions, options["revision"])
    services = _services(options, revision)
    records = _records(redis, fleet, host, Path(options["root"]))
    expected = _expectation(options, records, revision)
    if options["revision"] == "current":
        expected = replace(expected, release=_kept_release(revisions, expected, records))
    place = Place(
        engine,
        redis,
        fleet,
        host,
        options["hosts"],
        repositories_of(fleet, services, revision.release if revision else None),
    )
    # A deploy proves before the record is settled, and may go back to a release whose commit was built anew since.
    wanted = wanted_services(
        engine, services, expected.release, expected.sha, guard_directory(str(root)), with_tags=options["check_record"])
    rows = _record_rows(options, records, expected) + prove_host(
        place, wanted, options["timeout"], safe_point)
    values = _values(rows, expected, records)
    if not is_proved(rows):
        raise FailedResult(_failure(fleet, host, rows), values)
    return Result(False, values)


def _services(options: Mapping[str, Any], revision: Optional[Revision]) -> dict[str, Service]:
    """What should run here: by the inventory, or by the revision when the inventory isn't asked."""
    if options["services"] is not None:
        spec = read_services(options["fleet"], options["services"], options["defaults"])
        return placed(options["fleet"], spec, options["placement"])
    if revision is None:
        raise DriftguardError(
            "option services", "the fleet's services, or a proved revision that has them", "neither",
            "give services, or deploy first")
    return {
        # Revisions from before the key know only one way.
        name: Service(
            name, variant=str(facts["variant"]), replicas=int(facts["replicas"]), guard=str(facts.get("guard", EXEC)))
        for name, facts in revision.services.items()}


def _records(redis: RedisGateway, fleet: str, host: str, root: Path) -> Records:
    rows = []
    try:
        of_fleet = redis.record(fleet)
    except DriftguardError as error:
        of_fleet = None
        rows.append(Row("-", "fleet record", host, verdict=verdicts.RECORD, found=error.found, remedy=error.remedy))
    here = HostRecords(root, fleet).read()
    if here.problem:
        rows.append(
            Row(
                "-",
                "host record",
                host,
                verdict=verdicts.RECORD,
                found=here.problem,
                remedy="deploy again: ansible-playbook playbooks/deploy-workers.yml",
            )
        )
    return Records(of_fleet, here.record, tuple(rows))


def _revision(revisions: Revisions, wanted: str) -> Optional[Revision]:
    if wanted == "current" and revisions.current() is None:
        return None
    return revisions.load(revisions.resolve(wanted))


def _expectation(options: Mapping[str, Any], records: Records, revision: Optional[Revision]) -> Expectation:
    """Who says what is expected: the option, then the fleet's record, then this host's; never a checkout."""
    release = revision.release if revision else None
    asked = options["expected_sha"]
    if asked:
        return Expectation(_full(asked, release, records), "option expected_sha", release)
    if records.fleet is not None:
        return Expectation(records.fleet.target.sha, "the fleet's record in Redis", release)
    if records.host is not None:
        return Expectation(records.host.target.sha, "this host's record (the fleet has none in Redis)", release)
    return Expectation(release.sha if release else "", "this host's proved revision (there is no record)", release)


def _kept_release(revisions: Revisions, expected: Expectation, records: Records) -> Optional[Release]:
    """The expected release as a revision of this host has it: the proved one, or one that a run has brought here and
    that isn't the fleet's yet. Without any, the proved one of another commit.
    """
    proved = expected.release
    if proved is not None and proved.sha == expected.sha:
        return proved
    targets = [record.target for record in (records.fleet, records.host) if record is not None]
    wanted = {target.release_id for target in targets if target.sha == expected.sha}
    for number in reversed(revisions.numbers()):
        try:
            release = revisions.load(number).release
        except DriftguardError:  # it is for a deploy to say which one is damaged
            continue
        if release.sha == expected.sha and (not wanted or release.release_id in wanted):
            return release
    return proved


def _full(asked: str, release: Optional[Release], records: Records) -> str:
    """A SHA as a person types it, made whole where it is an unambiguous prefix of one that is known here."""
    text = asked.lower()
    if not MIN_SHA_PREFIX <= len(text) <= 40 or any(letter not in "0123456789abcdef" for letter in text):
        raise DriftguardError(
            "option expected_sha",
            "7 to 40 hexadecimal digits of a commit",
            repr(asked)[:60],
            "give the commit's full SHA",
        )
    known = {record.target.sha for record in (records.fleet, records.host) if record} | (
        {release.sha} if release else set()
    )
    fitting = {sha for sha in known if sha.startswith(text)}
    if len(text) == 40:
        return text
    if len(fitting) != 1:
        raise DriftguardError(
            "option expected_sha",
            "the full SHA, or a prefix of exactly one that this host knows",
            f"{asked} fits {len(fitting)}",
            f"give the full SHA; known here: {', '.join(sorted(known)) or 'none'}",
        )
    return fitting.pop()


def _record_rows(options: Mapping[str, Any], records: Records, expected: Expectation) -> list[Row]:
    rows = list(records.rows)
    named = {row.instance for row in rows}
    for name, record, where in (("fleet", records.fleet, "Redis"), ("host", records.host, "guard.json")):
        if (name == "fleet" and not options["check_record"]) or f"{name} record" in named:
            continue
        found = _record_flaw(record, expected, options["check_record"])
        if found:
            rows.append(
                Row(
                    "-",
                    f"{name} record",
                    options["host"],
                    sha=record.target.sha if record else "",
                    state=record.phase if record else "",
                    verdict=verdicts.RECORD,
                    found=f"{found} ({where})",
                    remedy="deploy again: ansible-playbook playbooks/deploy-workers.yml",
                )
            )
    return rows


def _record_flaw(record: Optional[Record], expected: Expectation, must_be_settled: bool) -> str:
    if record is None:
        return "there is no release record"
    if must_be_settled and record.phase != SETTLED:
        return f"a deploy is under way, or was cut off: the record is {record.phase}"
    release = expected.release
    if must_be_settled and record.target.sha != expected.sha:
        return f"the record is settled on {record.target.sha[:7]}, not {expected.sha[:7]}"
    if release is not None and release.sha == expected.sha and not record.allows(release.release_id, release.sha):
        return f"the record doesn't allow release {release.release_id}"
    return ""


def _values(rows: list[Row], expected: Expectation, records: Records) -> dict[str, Any]:
    plain = [row.to_dict() for row in rows]
    return {
        "proved": is_proved(rows),
        "rows": plain,
        "table": table(plain, expected.sha),
        "expected_sha": expected.sha,
        "expected_from": expected.source,
        "record": records.fleet.as_result() if records.fleet else None,
    }


def _failure(fleet: str, host: str, rows: list[Row]) -> DriftguardError:
    wrong = failing(rows)
    named = "; ".join(f"[{row.verdict}] {row.instance}: {row.found}" for row in wrong[:SHOWN_PROBLEMS])
    more = f"; and {len(wrong) - SHOWN_PROBLEMS} more" if len(wrong) > SHOWN_PROBLEMS else ""
    return DriftguardError(
        f"fleet {fleet} on {host}",
        "every worker that the inventory demands, and no other, on the release",
        named + more if wrong else "no worker at all",
        wrong[0].remedy if wrong else "deploy: ansible-playbook playbooks/deploy-workers.yml",
    )
