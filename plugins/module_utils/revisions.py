# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The revisions of a fleet on one host: directories under ``revisions/``, the link ``current``, and the history."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Optional

from .errors import DriftguardError
from .host_files import make_directory, read_text, sync_directory, write_atomic, write_error
from .release_info import Release
from .untrusted import clean, whole_number

COMPOSE_FILE = "compose.yml"
RELEASE_FILE = "release.json"
HISTORY_LIMIT = 50
MIN_PREFIX = 7
SERVICE_KEYS = ("variant", "replicas", "image", "spec", "grace", "memory")  # of each service in release.json


@dataclass(frozen=True)
class Revision:
    """One rendered revision: its number, directory, release and what each service should be."""

    number: int
    directory: Path
    release: Release
    services: dict[str, dict[str, Any]]

    @property
    def compose_file(self) -> Path:
        """The compose file of this revision."""
        return self.directory / COMPOSE_FILE


def release_json(release: dict[str, Any], services: dict[str, dict[str, Any]]) -> str:
    """Content of ``release.json``."""
    return json.dumps({"schema": 1, "release": release, "services": services}, indent=2, sort_keys=True) + "\n"


class Revisions:
    """Revisions of one fleet on this host.

    :param root: directory of the fleet, such as /opt/driftguard/demo.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._directory = root / "revisions"
        self._link = root / "current"
        self._history = root / "state" / "history.json"

    def current(self) -> Optional[int]:
        """Number of the revision that was last proved on this host, None before the first."""
        try:
            target = os.readlink(self._link)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DriftguardError(
                str(self._link), "a link to a revision", str(error), "remove it and deploy again") from error
        name = Path(target).name
        if not _is_number(name):
            raise DriftguardError(
                str(self._link), "a link to a numbered revision", target, "remove it and deploy again")
        return int(name)

    def numbers(self) -> list[int]:
        """Numbers of all revisions kept here, ascending."""
        if not self._directory.is_dir():
            return []
        return sorted(int(entry.name) for entry in self._directory.iterdir() if _is_number(entry.name))

    def load(self, number: int) -> Revision:
        """Read one revision.

        :raises DriftguardError: it isn't kept here, or its files are damaged.
        """
        directory = self._directory / str(number)
        content = read_text(directory / RELEASE_FILE)
        if content is None:
            raise DriftguardError(
                f"revision {number} in {self._directory}", "to be kept on this host",
                f"only {self.numbers() or 'none'}",
                "name one of those, or deploy the commit again")
        try:
            data = json.loads(content)
            release, services = data["release"], data["services"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._damaged(directory, f"{type(error).__name__}: {error}") from error
        if not are_services(services):
            raise self._damaged(directory, "services without what a rollout needs of them")
        return Revision(number, directory, Release.from_dict(release), services)

    @staticmethod
    def _damaged(directory: Path, found: str) -> DriftguardError:
        return DriftguardError(
            str(directory / RELEASE_FILE), "the file as worker_compose wrote it", clean(found),
            "remove the revision's directory and deploy again")

    def find(self, compose: str, release: str) -> Optional[int]:
        """The newest revision with exactly this content, so that a run that was cut off doesn't write it twice."""
        for number in reversed(self.numbers()):
            directory = self._directory / str(number)
            if read_text(directory / COMPOSE_FILE) == compose and read_text(directory / RELEASE_FILE) == release:
                return number
        return None

    def compose_text(self, number: Optional[int]) -> str:
        """The compose file of a revision as text, empty when there is none."""
        return "" if number is None else read_text(self._directory / str(number) / COMPOSE_FILE) or ""

    def next_number(self, at_least: int) -> int:
        """A number for a new revision: at least the deployment's own, and above all that are kept."""
        return max([at_least, *(number + 1 for number in self.numbers())])

    def write(self, number: int, compose: str, release: str) -> None:
        """Write a revision whole or not at all.

        :raises DriftguardError: nothing was changed.
        """
        make_directory(self.root, 0o755)
        make_directory(self._directory, 0o700)
        self.sweep()
        temporary = None
        try:
            temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=self._directory))
            write_atomic(temporary / COMPOSE_FILE, compose, 0o600)
            write_atomic(temporary / RELEASE_FILE, release, 0o600)
            os.rename(temporary, self._directory / str(number))
            sync_directory(self._directory)
        except OSError as error:
            raise write_error(self._directory / str(number), error) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def remove(self, number: int) -> None:
        """Remove a revision whole or not at all.

        :raises DriftguardError: it is the current one, or can't be renamed; nothing was changed.
        """
        place = self._directory / str(number)
        if number == self.current():
            raise DriftguardError(str(place), "a revision that isn't the current one", "the current one", "keep it")
        try:
            os.rename(place, self._directory / f".gone-{number}")
            sync_directory(self._directory)
        except OSError as error:
            raise write_error(place, error) from error
        self.sweep()

    def size(self, number: int) -> int:
        """Bytes of a revision's files."""
        return sum(path.stat().st_size for path in (self._directory / str(number)).iterdir())

    def sweep(self) -> None:
        """Remove what a run that was killed while it wrote or removed a revision left behind."""
        for leftover in (*self._directory.glob(".new-*"), *self._directory.glob(".gone-*")):
            shutil.rmtree(leftover, ignore_errors=True)

    def history(self) -> list[dict[str, Any]]:
        """Proved revisions, oldest first: ``revision, releaseId, sha, generation``; a damaged file counts as none."""
        try:
            entries = json.loads(read_text(self._history) or "[]")
        except (ValueError, RecursionError):
            return []
        return [
            entry for entry in (entries if isinstance(entries, list) else ())
            if isinstance(entry, dict) and whole_number(entry.get("revision")) is not None]

    def settled_by(self) -> int:
        """Number of the deploy that settled a revision here last, 0 for none."""
        numbers = [whole_number(entry.get("generation")) for entry in self.history()[-1:]]
        return max((number for number in numbers if number is not None), default=0)

    def settle(self, revision: Revision, generation: int) -> bool:
        """Make a proved revision the current one; returns whether anything changed."""
        if self.current() == revision.number:
            return False
        make_directory(self._history.parent, 0o700)
        entries = [*self.history(), {
            "revision": revision.number, "releaseId": revision.release.release_id, "sha": revision.release.sha,
            "generation": generation}]
        write_atomic(self._history, json.dumps(entries[-HISTORY_LIMIT:], indent=2) + "\n", 0o600)
        self._point_to(revision.number)
        return True

    def forget_current(self) -> bool:
        """Drop the link (a fleet without a proved revision); returns whether there was one."""
        if self.current() is None:
            return False
        self._link.unlink()
        return True

    def _point_to(self, number: int) -> None:
        temporary = self.root / f".current-{os.getpid()}"
        try:
            temporary.unlink(missing_ok=True)
            os.symlink(f"revisions/{number}", temporary)
            os.replace(temporary, self._link)
            sync_directory(self.root)
        except OSError as error:
            raise write_error(self._link, error) from error

    def resolve(self, wanted: str, fenced: Collection[str] = ()) -> int:
        """The revision a person means.

        :param fenced: ids of releases that ``previous`` passes over.
        :param wanted: ``current``, ``previous`` (what was proved before the current one), a number, or a prefix of a
            SHA or release id.
        :raises DriftguardError: none, or more than one fits.
        """
        if wanted == "current":
            found = self.current()
            if found is None:
                raise self._unresolved(wanted)
            return found
        if wanted == "previous":
            return self._previous(fenced)
        if _is_number(wanted) and int(wanted) in self.numbers():
            return int(wanted)
        return self._by_prefix(wanted)

    def _previous(self, fenced: Collection[str]) -> int:
        usable = self._usable(fenced)
        if not usable:
            raise self._unresolved("previous")
        return usable[-1]

    def rollbacks(self, fenced: Collection[str]) -> set[int]:
        """What ``previous`` means now, and what it would without the fences."""
        return {usable[-1] for usable in (self._usable(fenced), self._usable(())) if usable}

    def _usable(self, fenced: Collection[str]) -> list[int]:
        """What was before the current one; going back to B over C takes C out, as release_history does."""
        current, kept = self.current(), set(self.numbers())
        stack: list[int] = []
        for number in (int(entry["revision"]) for entry in self.history()):
            stack = [*(stack[: stack.index(number)] if number in stack else stack), number]
        below = stack[: stack.index(current)] if current in stack else stack
        barred = {entry["revision"] for entry in self.history() if entry.get("releaseId") in fenced}
        return [number for number in below if number in kept and number not in barred]

    def _kept(self) -> list[dict[str, Any]]:
        kept = set(self.numbers())
        return [entry for entry in self.history() if entry["revision"] in kept]

    def _by_prefix(self, wanted: str) -> int:
        prefix = wanted.lower()
        fitting = [
            entry for entry in self._kept()
            if any(str(entry.get(key)).startswith(prefix) for key in ("sha", "releaseId"))]
        if len(prefix) < MIN_PREFIX or len({str(entry.get("releaseId")) for entry in fitting}) != 1:
            raise self._unresolved(wanted)
        return int(fitting[-1]["revision"])

    def _unresolved(self, wanted: str) -> DriftguardError:
        kept = [f"{entry['revision']} ({clean(str(entry.get('sha')))[:7]})" for entry in self._kept()]
        return DriftguardError(
            f"revision {clean(wanted)} in {self._directory}", "exactly one proved revision of that name",
            f"proved here: {', '.join(kept) or 'none'}",
            f"name one of those by number, or by at least {MIN_PREFIX} characters of its SHA")


def are_services(value: Any) -> bool:
    """Whether this is what the compose renderer says of services: name → at least :data:`SERVICE_KEYS`."""
    return isinstance(value, dict) and all(
        isinstance(service, dict) and set(SERVICE_KEYS) <= set(service)
        and all(whole_number(service[key]) is not None for key in ("replicas", "grace", "memory"))
        for service in value.values())


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= 15
