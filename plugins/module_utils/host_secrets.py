# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of a fleet on a host: files that belong to the image's user and are named by their content.

A file's name ends in a keyed mark of what it holds. So a new content never stands in an old one's place: what runs
keeps what it was started with, and a rollback finds what its revision names.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets as randomness
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping

from .compose_render import REDIS_PASSWORD, named_secrets, secret_path
from .errors import DriftguardError
from .fleet_spec import MIN_SECRET_LENGTH, PLAIN_NAME
from .fleet_values import shown
from .host_files import make_directory, read_text, write_atomic
from .revisions import Revisions


def read_secrets(fleet: str, raw: Any, redis_password: Any) -> dict[str, str]:
    """The fleet's secrets by name, the Redis password among them.

    :param raw: name → content.
    :raises DriftguardError: names the secret, never its content. Short ones are refused: Ansible masks a secret
        wherever its text appears, and a short one would mask half of every result.
    """
    found = dict(raw or {})
    if redis_password:
        found[REDIS_PASSWORD] = redis_password
    for name, value in found.items():
        if not isinstance(name, str) or not PLAIN_NAME.match(name):
            raise DriftguardError(
                f"fleet {fleet}, worker_secrets", "names of at most 100 letters, digits, '-', '_' and '.'", shown(name),
                "rename the secret")
        if not _is_secret(value):
            raise DriftguardError(
                f"fleet {fleet}, secret {name}",
                f"text of at least {MIN_SECRET_LENGTH} characters, in UTF-8 and without NUL",
                "a shorter one, or no such text", "choose a longer secret (put a number in quotes)")
    return {name: str(value) for name, value in found.items()}


def _is_secret(value: Any) -> bool:
    if not isinstance(value, str) or len(value.strip()) < MIN_SECRET_LENGTH or "\0" in value:
        return False
    try:
        return bool(value.encode("utf-8"))
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class SecretFile:
    """Where a secret's content has to be, and whose it is."""

    name: str
    path: Path
    uid: int
    gid: int


class HostSecrets:
    """The fleet's secret files on this host.

    :param root: directory of the fleet, such as /opt/driftguard/demo.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / "secrets"
        self._key_file = self._directory / ".key"

    def marks(self, secrets: Mapping[str, str], write: bool) -> dict[str, str]:
        """Secret name → keyed digest. The key never leaves the host, so a mark tells nothing about the secret.

        :param write: whether a missing key may be made and kept; without, its marks match nothing, as after a run.
        """
        key = read_text(self._key_file)
        if not key:
            key = randomness.token_hex(32)
            if write and secrets:
                self._prepare()
                write_atomic(self._key_file, key, 0o600)
        return {
            name: hmac.new(key.encode(), f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]
            for name, value in sorted(secrets.items())
        }

    def stale(
        self, secrets: Mapping[str, str], marks: Mapping[str, str], owners: Iterable[tuple[str, int, int]],
    ) -> list[SecretFile]:
        """The files that are missing, or differ in content, owner or mode.

        :param marks: of these secrets, as :meth:`marks` tells them.
        :param owners: secret name, uid and gid: no user gets a secret that none of its services lists. What the
            compose file doesn't name would be swept, and be missing again at every run.
        """
        files = [
            SecretFile(name, Path(secret_path(str(self._root), name, marks[name], uid)), uid, gid)
            for name, uid, gid in sorted(set(owners))]
        return [file for file in files if not _is_right(file, secrets[file.name])]

    def write(self, secrets: Mapping[str, str], stale: Iterable[SecretFile]) -> None:
        """Write the files that differ, each readable by its owner alone.

        :raises DriftguardError: a file could not be written; those before it were.
        """
        for file in stale:
            self._prepare()
            make_directory(file.path.parent, 0o700)
            write_atomic(file.path, secrets[file.name], 0o400, file.uid, file.gid)

    def sweep(self, revisions: Revisions) -> None:
        """Remove the files that no revision on this host names: of a run that was killed before it wrote its revision,
        or of revisions that were removed. To be called under the host's lock, as :meth:`write` is.

        What can't be removed stays for the next sweep, and while a revision can't be read all do: neither is worth
        failing a run whose workers are proved.
        """
        for path in self.unnamed(revisions, revisions.numbers()).values():
            with suppress(OSError):
                path.unlink()

    def unnamed(self, revisions: Revisions, numbers: Iterable[int]) -> dict[str, Path]:
        """The files that none of these revisions names, as ``<uid>/<file>``; none while one of them can't be read."""
        try:
            named = {file for number in numbers for file in named_secrets(revisions.compose_text(number))}
        except (DriftguardError, OSError):
            return {}
        files = {f"{path.parent.name}/{path.name}": path for path in sorted(self._directory.glob("[0-9]*/*"))}
        return {name: path for name, path in files.items() if name not in named}

    def _prepare(self) -> None:
        make_directory(self._root, 0o755)
        make_directory(self._directory, 0o700)


def _is_right(file: SecretFile, value: str) -> bool:
    if read_text(file.path) != value:
        return False
    facts = file.path.stat()
    return facts.st_uid == file.uid and facts.st_mode & 0o777 == 0o400
