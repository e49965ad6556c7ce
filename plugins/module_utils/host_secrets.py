# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of a fleet on a host: files that belong to the image's user, and keyed marks that tell when one changed."""

from __future__ import annotations

import hashlib
import hmac
import secrets as randomness
from pathlib import Path
from typing import Any, Iterable, Mapping

from .compose_render import REDIS_PASSWORD, secret_path
from .errors import DriftguardError
from .fleet_spec import MIN_SECRET_LENGTH, PLAIN_NAME
from .fleet_values import shown
from .host_files import make_directory, read_text, write_atomic


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

    def stale(self, secrets: Mapping[str, str], owners: Iterable[tuple[int, int]]) -> list[tuple[str, int, int]]:
        """Which files differ: secret name, uid and gid. Missing ones, and ones of another owner or mode, differ too."""
        return [
            (name, uid, gid) for uid, gid in sorted(set(owners)) for name, value in sorted(secrets.items())
            if not _is_right(Path(secret_path(str(self._root), name, uid)), value, uid)]

    def write(self, secrets: Mapping[str, str], stale: Iterable[tuple[str, int, int]]) -> None:
        """Write the files that differ, each readable by its owner alone.

        :raises DriftguardError: a file could not be written; those before it were.
        """
        for name, uid, gid in stale:
            self._prepare()
            path = Path(secret_path(str(self._root), name, uid))
            make_directory(path.parent, 0o700)
            write_atomic(path, secrets[name], 0o400, uid, gid)

    def _prepare(self) -> None:
        make_directory(self._root, 0o755)
        make_directory(self._directory, 0o700)


def _is_right(path: Path, value: str, uid: int) -> bool:
    if read_text(path) != value:
        return False
    facts = path.stat()
    return facts.st_uid == uid and facts.st_mode & 0o777 == 0o400
