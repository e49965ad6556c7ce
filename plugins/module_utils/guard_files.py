# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guards of a fleet on a host: root's alone, to the byte what was handed over, each replaced by rename."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Mapping, Sequence

from .errors import DriftguardError
from .fleet_values import shown
from .host_files import make_directory, write_atomic
from .host_record import HostRecords
from .module_base import Result
from .names import FLEET_PATTERN, guard_directory

MODE = 0o755
ROOT = 0
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def install_guards(options: Mapping[str, Any], check: bool) -> Result:
    """Put back whatever differs; containers see each new file at once, and none sees half of it.

    :param options: the module's: fleet, root, files by name, digests of those that are only looked at, and a deploy's
        number, run and patience.
    :raises DriftguardError: a name that is no file's, a place that can't be written, a file that differs from its
        digest and can't be put back, or a deploy that was overtaken or has to wait too long for another run here.
    """
    fleet, files = options["fleet"], options["files"]
    if not FLEET_PATTERN.match(fleet):
        raise DriftguardError("option fleet", f"a name that matches {FLEET_PATTERN.pattern}", shown(fleet), "mend it")
    for name, content in files.items():
        if name.startswith(".") or "/" in name or not isinstance(content, str):
            raise DriftguardError(f"option files, {shown(name)}", "a file's name and its text", "another", "mend it")
    digests = _digests(files, options["digests"])
    here, number = HostRecords(Path(options["root"]), fleet), options["generation"]
    directory = Path(guard_directory(str(here.directory)))
    is_deploy = number is not None and not check
    with here.turn(number, options["run"], options["lock_wait"]) if is_deploy else nullcontext():
        wrong = [] if _is_right(directory, stat.S_ISDIR) else [directory]
        wrong += [directory / name for name in sorted(digests) if not _has(directory / name, digests[name])]
        if wrong and not check:
            _refuse([path for path in wrong if path.name not in files and (path != directory or not files)])
            _write(directory, {path: files[path.name] for path in wrong if path != directory}, is_deploy)
    text = "".join(f"{path}\n" for path in wrong)
    return Result(bool(wrong), {"installed": [str(path) for path in wrong]}, "", text, f"guards in {directory}")


def _write(directory: Path, files: Mapping[Path, str], is_alone: bool) -> None:
    if directory.is_symlink():
        raise DriftguardError(str(directory), "a directory", "a link", "remove it, then deploy again")
    make_directory(directory, MODE, ROOT, ROOT)
    for path, content in files.items():
        if path.is_dir() and not path.is_symlink():
            raise DriftguardError(str(path), "a file", "a directory", "remove it, then deploy again")
        if is_alone:
            _sweep(path)
        write_atomic(path, content, MODE, ROOT, ROOT)


def _sweep(path: Path) -> None:
    """Remove what a run that was killed left of a file; while another writes it, that would be its draft."""
    for leftover in path.parent.iterdir():
        if leftover.name.startswith(f".{path.name}."):
            leftover.unlink()


def _digests(files: Mapping[str, str], more: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every file, of those whose text was given and of those that are only looked at."""
    for name, digest in more.items():
        if name in files or name.startswith(".") or "/" in name or not _DIGEST.match(str(digest)):
            raise DriftguardError(
                f"option digests, {shown(name)}", "a file's name and the SHA-256 of its text", shown(digest), "mend it")
    own = {name: hashlib.sha256(content.encode("utf-8")).hexdigest() for name, content in files.items()}
    return {**own, **more}


def _refuse(paths: Sequence[Path]) -> None:
    """Refuse what only somebody who has its text could put back."""
    if paths:
        raise DriftguardError(
            str(paths[0]), "the guard as this collection has it", "another file, or none",
            "hand over its text (option files), or deploy again: the role does")


def _has(path: Path, digest: str) -> bool:
    try:
        return _is_right(path, stat.S_ISREG) and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _is_right(path: Path, kind: Any) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return bool(kind(found.st_mode)) and (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (ROOT, ROOT, MODE)
