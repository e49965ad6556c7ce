# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on a host, each written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Iterator, Optional

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


@dataclass
class NewFile:
    """A file that is being written and has no name yet.

    :param wanted: set it to False to leave nothing behind.
    """

    stream: IO[bytes]
    wanted: bool = True


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[NewFile]:
    """A file that gets its name when the block ends, synced to disk first, and never in the place of another.

    :param mode: permission bits; in force before the file has its name.
    :raises DriftguardError: it can't be written, or its name is taken; nothing is left behind then, nor when the block
        raises.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:200]}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            new = NewFile(stream)
            yield new
            stream.flush()
            os.fsync(stream.fileno())
        if new.wanted:
            os.link(temporary, path)  # unlike a rename it fails where the name is taken
            os.unlink(temporary)
            temporary = None
            sync_directory(path.parent)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink()


def check_new_file(path: Path) -> None:
    """Whether :func:`new_file` could begin, as far as can be told without writing.

    :raises DriftguardError: the name is taken, or its directory is missing or may not be written.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise write_error(path, error) from error
    else:
        raise _taken(path)
    if not path.parent.is_dir():
        raise DriftguardError(
            str(path), "a directory to write it in", f"no directory {path.parent}",
            "create the directory, or name another; nothing was changed")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DriftguardError(
            str(path), "a directory that may be written", f"no permission in {path.parent}",
            "mend its permissions, become its owner, or name another; nothing was changed")


def _taken(path: Path) -> DriftguardError:
    return DriftguardError(
        str(path), "a file that isn't there yet", "one of that name",
        "name another, with the date in it for instance; nothing was changed")


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
