# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on a host, each written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Optional

from .errors import DriftguardError


def read_text(path: Path) -> Optional[str]:
    """Content of a file to the byte (no line ending is translated), or None where there is none.

    :raises DriftguardError: it is there but can't be read.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DriftguardError(
            str(path), "a readable UTF-8 file", str(error), "mend or remove the file, then run again") from error


def write_atomic(path: Path, content: str, mode: int, owner: int = -1, group: int = -1) -> None:
    """Replace a file by rename within its directory, synced to disk first.

    :param mode: permission bits; in force before the file has its name.
    :param owner: numeric uid, -1 to leave; likewise group.
    :raises DriftguardError: nothing was changed (disk full, read-only, no permission).
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            os.fchown(stream.fileno(), owner, group)
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        temporary = None
        sync_directory(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink()


def make_directory(path: Path, mode: int, owner: int = -1, group: int = -1) -> None:
    """Create a directory and its parents (0755) where missing, and give it mode and owner.

    :raises DriftguardError: it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        os.chmod(path, mode)
        os.chown(path, owner, group)
    except OSError as error:
        raise write_error(path, error) from error


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(path: Path, error: OSError) -> DriftguardError:
    """The error for a file that could not be written."""
    return DriftguardError(
        str(path), "to write it", error.strerror or str(error),
        "free disk space, or mend the permissions or the mount; nothing was changed")
