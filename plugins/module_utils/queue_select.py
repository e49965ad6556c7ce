# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which jobs are meant: criteria as an inventory gives them, and the judgement of one job. Pure.

A job is chosen when every criterion that is given holds for it. One that can't be judged (no hash, no time, no such
field) is never chosen: nothing goes for lack of knowledge.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Mapping, Optional

from .errors import DriftguardError
from .queues import FINISHED, data_of, milliseconds
from .untrusted import MAX_NUMBER, clean, decode

MAX_IDS = 1_000_000
MAX_ID = 4096
_AGE = re.compile(r"^([0-9]{1,6})(s|m|h|d|w)\Z", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_FIELD = re.compile(r"^data(\.[^.\s]{1,100}){1,8}\Z")


@dataclass(frozen=True)
class Evidence:
    """Jobs whose evidence is gone: a place in their data, and the ids that still exist."""

    field: str
    existing: frozenset[str]


@dataclass(frozen=True)
class Criteria:
    """What holds for all that are chosen; None where it doesn't matter.

    :param seconds: least age.
    :param name: pattern for the job's name; job_id: pattern for its id.
    """

    seconds: Optional[int] = None
    name: Optional[str] = None
    job_id: Optional[str] = None
    ids: Optional[frozenset[str]] = None
    evidence: Optional[Evidence] = None

    @property
    def fields(self) -> list[str]:
        """What has to be read of a job's hash."""
        return ["name", "timestamp", *(["data"] if self.evidence else [])]


@dataclass(frozen=True)
class Judged:
    """One job's judgement.

    :param chosen: True, False, or None when it can't be told.
    :param has_evidence: whether its evidence still exists, None when that isn't known or not asked.
    """

    chosen: Optional[bool]
    has_evidence: Optional[bool] = None


def judge(
    criteria: Criteria, job_id: bytes, fields: Optional[Mapping[str, Any]], since: Optional[int], now: int,
) -> Judged:
    """Whether a job is meant.

    :param fields: of its hash; None where that is none.
    :param since: what :func:`since_of` says.
    :param now: milliseconds.
    """
    known = fields or {}
    answers: list[Optional[bool]] = []
    if criteria.seconds is not None:
        answers.append(None if since is None else now - since >= criteria.seconds * 1000)
    if criteria.name is not None:
        name = known.get("name")
        answers.append(None if name is None else fnmatchcase(decode(name), criteria.name))
    if criteria.job_id is not None:
        answers.append(fnmatchcase(decode(job_id), criteria.job_id))
    if criteria.ids is not None:
        answers.append(decode(job_id) in criteria.ids)
    exists = None
    if criteria.evidence is not None:
        evidence = evidence_of(known.get("data"), criteria.evidence.field)
        exists = None if evidence is None else evidence in criteria.evidence.existing
        answers.append(None if exists is None else not exists)
    return Judged(False if False in answers else None if None in answers else True, exists)


def since_of(place: str, score: Optional[float], fields: Optional[Mapping[str, Any]]) -> Optional[int]:
    """When a job was completed or failed, which is its score in those two sets; in all others when it was added.

    :returns: milliseconds since 1970, None where that can't be told.
    """
    if place not in FINISHED:
        return milliseconds((fields or {}).get("timestamp"))
    return int(score) if score is not None and 0 <= score < MAX_NUMBER else None


def evidence_of(data: Any, field: str) -> Optional[str]:
    """The text or whole number at a place in a job's data, as text; None for anything else."""
    value = data_of(data)
    for key in field.split(".")[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return _as_id(value)


def parse_age(option: str, text: str) -> int:
    """Seconds from ``90s``, ``15m``, ``36h``, ``7d`` or ``2w``.

    :raises DriftguardError: it isn't one of these.
    """
    match = _AGE.match(text)
    if match:
        return int(match.group(1)) * _UNITS[match.group(2)]
    raise DriftguardError(
        f"option {option}", "a number with its unit, such as 90s, 15m, 36h, 7d or 2w", repr(clean(text)),
        "write the age like this; 0s for any")


def parse_ids(option: str, values: Any) -> frozenset[str]:
    """A list of ids.

    :raises DriftguardError: it is none, it is empty, or one of it is no id.
    """
    if not isinstance(values, (list, tuple)) or not 0 < len(values) <= MAX_IDS:
        found = f"{len(values)} of them" if isinstance(values, (list, tuple)) else type(values).__name__
        raise DriftguardError(
            f"option {option}", f"a list of 1 to {MAX_IDS} ids", found,
            "find out why the list is like this; an empty one is never taken for all, or for nothing, being gone")
    for place, value in enumerate(values, 1):
        if _as_id(value) is None:
            raise DriftguardError(
                f"option {option}, entry {place}",
                f"a text without control characters, or a whole number, of at most {MAX_ID} characters",
                clean(f"{type(value).__name__} {value!r}", 80), "mend the list; nothing was done")
    return frozenset(str(value) for value in values)


def ids_of_file(path: str, text: Optional[str]) -> frozenset[str]:
    """The ids in a file: one on each line, or a JSON list.

    :param text: its content, None when it isn't there.
    :raises DriftguardError: as :func:`parse_ids`.
    """
    if text is None:
        raise DriftguardError(path, "a file with ids", "none there", "write the file, or mend the path")
    if text.lstrip()[:1] not in ("[", "{"):
        return parse_ids(path, [line.strip() for line in text.splitlines() if line.strip()])
    try:
        return parse_ids(path, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise DriftguardError(
            path, "one id on each line, or a JSON list of ids", clean(str(error)), "mend the file") from error


def parse_field(field: str) -> str:
    """Where a job's evidence is named.

    :raises DriftguardError: it is no place in a job's data.
    """
    if _FIELD.match(field):
        return field
    raise DriftguardError(
        "option evidence, field", "a place in the job's data, such as data.evidenceId", repr(clean(field)),
        "write data and the keys down to the id, with dots between; a dead letter's own data is data.data")


def refuse_all_gone(there: int, gone: int, existing: frozenset[str]) -> None:
    """Refuse a list of existing evidence that no job's evidence is in: it may be a list of something else.

    :param there: how many jobs have evidence that is in the list; gone: how many have such that isn't.
    :raises DriftguardError: there are jobs with evidence, and not one's is in the list.
    """
    if gone and not there:
        raise DriftguardError(
            "option evidence", "the evidence of at least one job to be in the list of what exists",
            f"{len(existing)} ids in the list, and none of them that of any of {gone} jobs",
            "check that list and field speak of the same ids; if really all are gone, say all_gone: true")


def _as_id(value: Any) -> Optional[str]:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    text = str(value)
    return text if 0 < len(text) <= MAX_ID and text.isprintable() else None
