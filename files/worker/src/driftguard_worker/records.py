# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Release records, as the deployer writes them on the host and in Redis; here they are only read, and never trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Optional

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from .decision import View
from .names import (
    FLEET_PATTERN,
    MAX_ALLOWED,
    MAX_GENERATION,
    MAX_RECORD_BYTES,
    RECORD_FILE,
    RELEASE_PATTERN,
    SHA_PATTERN,
)

__all__ = ["HostRecord", "ReleaseKey", "view_of"]


class ReleaseKey(NamedTuple):
    """A release, as records name it: its id and the commit."""

    release_id: str
    sha: str


class _Strict(BaseModel):
    # A number is not a string and a string not a number: what the guards refuse isn't read more leniently here.
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, alias_generator=to_camel)


class _Release(_Strict):
    release_id: Annotated[str, StringConstraints(pattern=RELEASE_PATTERN)]
    sha: Annotated[str, StringConstraints(pattern=SHA_PATTERN)]


class _Record(_Strict):
    version: Annotated[int, Field(alias="schema", ge=1, le=1)]
    fleet: Annotated[str, StringConstraints(pattern=FLEET_PATTERN)]
    generation: Annotated[int, Field(ge=1, le=MAX_GENERATION)]
    phase: Literal["rolling", "settled"]
    target: _Release
    allowed: Annotated[list[_Release], Field(min_length=1, max_length=MAX_ALLOWED)]


def view_of(content: Optional[bytes], own: Optional[ReleaseKey], fleet: Optional[str] = None) -> View:
    """What a record says of a release.

    :param content: the record; none or nothing where there is no record.
    :param own: the release that asks; one that doesn't know itself is never allowed.
    :param fleet: the fleet that the record has to name; none where that doesn't matter.
    """
    if not content:
        return View.MISSING
    allowed = _allowed(content, fleet)
    if allowed is None:
        return View.UNREADABLE
    return View.ALLOWED if own in allowed else View.NOT_ALLOWED


def _allowed(content: bytes, fleet: Optional[str]) -> Optional[list[ReleaseKey]]:
    try:
        if len(content) > MAX_RECORD_BYTES:
            return None
        record = _Record.model_validate(
            json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
        )
    except (ValueError, RecursionError, ValidationError):
        return None
    keys = [_key(release) for release in record.allowed]
    target = _key(record.target)
    sound = (
        fleet in (None, record.fleet),
        all(key.release_id[:12] == key.sha[:12] for key in (target, *keys)),
        len(set(keys)) == len(keys),
        target in keys,
        record.phase == "rolling" or keys == [target],
    )
    return keys if all(sound) else None


def _key(release: _Release) -> ReleaseKey:
    return ReleaseKey(release.release_id, release.sha)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


class HostRecord:
    """The host's record, read again only when the file is another one.

    :param directory: where the deployment mounts it.
    :param own: the release that asks.
    """

    def __init__(self, directory: Path, own: Optional[ReleaseKey]) -> None:
        self._file = directory / RECORD_FILE
        self._own = own
        self._mounted = os.path.lexists(directory)
        self._mark: Optional[tuple[int, ...]] = None
        self._view = View.MISSING if self._mounted else View.NOT_MOUNTED

    @property
    def mounted(self) -> bool:
        """Whether there was a place for a record when the worker started."""
        return self._mounted

    def view(self) -> View:
        """What the record says now; costs one ``stat`` while it is the same."""
        if not self._mounted:
            return View.NOT_MOUNTED
        try:
            status = self._file.stat()
            mark = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            if mark != self._mark:
                self._view, self._mark = self._read(), mark
        except FileNotFoundError:
            self._view, self._mark = View.MISSING, None
        except OSError:
            self._view, self._mark = View.UNREADABLE, None
        return self._view

    def _read(self) -> View:
        if not self._file.is_file():
            # Opening a pipe or a device could hang.
            return View.UNREADABLE
        with self._file.open("rb") as file:
            view = view_of(file.read(MAX_RECORD_BYTES + 1), self._own)
        # An empty file is there, so it isn't missing.
        return View.UNREADABLE if view is View.MISSING else view
