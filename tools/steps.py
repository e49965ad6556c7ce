# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up in steps: each runs only when its inputs changed or its result is gone, quietly, with a log."""

from __future__ import annotations

import fcntl
import hashlib
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Callable, Iterator, Sequence

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from .paths import LOGS, STAMPS, shown
from .processes import run_logged

TAIL_LINES = 25


@dataclass(frozen=True)
class Step:
    """One part of the set-up.

    :param name: of its stamp and its log.
    :param title: what the reader sees.
    :param inputs: digest of everything the result depends on; empty when being there is all that counts.
    :param present: whether the result is still there.
    :param action: makes the result; writes what it does into the log it is given.
    """

    name: str
    title: str
    inputs: Callable[[], str]
    present: Callable[[], bool]
    action: Callable[[IO[bytes]], None]


def digest(paths: Sequence[Path], *more: str) -> str:
    """A digest of files' names and contents (directories with all below, missing ones as such) and of more words."""
    total = hashlib.sha256("\0".join(more).encode())
    for path in sorted(_files(paths)):
        total.update(f"\0{path}\0".encode())
        total.update(path.read_bytes() if path.is_file() else b"missing")
    return total.hexdigest()


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (below for below in path.rglob("*") if below.is_file())
        else:
            yield path


def is_done(step: Step) -> bool:
    """Whether a step has nothing to do."""
    stamp, inputs = STAMPS / step.name, step.inputs()
    made_of = stamp.read_text() if stamp.exists() else ""
    return made_of == inputs and step.present()


def run_steps(steps: Sequence[Step]) -> None:
    """Bring every step up to date, in order; silent when there is nothing to do.

    :raises DriftguardError: a step failed; its log's end has been printed.
    """
    if all(is_done(step) for step in steps):
        return
    with _one_at_a_time():
        for step in steps:
            if not is_done(step):
                _run(step)


def _run(step: Step) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"setup-{step.name}.log"
    print(f"  {step.title} …", end="", flush=True)
    before = time.monotonic()
    with log.open("wb") as stream:
        try:
            step.action(stream)
        except DriftguardError:
            stream.flush()
            print(f" failed after {time.monotonic() - before:.1f} s")
            print(f"{tail(log)}\n(whole log: {shown(log)})", flush=True)
            raise
    (STAMPS / step.name).write_text(step.inputs())
    print(f" {time.monotonic() - before:.1f} s", flush=True)


def must(arguments: Sequence[str], log: IO[bytes], remedy: str) -> None:
    """Run a program of a step.

    :raises DriftguardError: it failed.
    """
    status = run_logged(arguments, log)
    if status:
        found = f"exit status {status} (see the lines above)"
        raise DriftguardError(" ".join(arguments[:4]), "exit status 0", found, remedy)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented."""
    return "\n".join(f"    | {line}" for line in log_lines(log)[-lines:])


def log_lines(log: Path) -> list[str]:
    """All lines of a log."""
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two make targets at once must not build the same environment."""
    STAMPS.mkdir(parents=True, exist_ok=True)
    with (STAMPS / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_known(what: str, asked: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that mean nothing: what runs nothing must not look as if all was well.

    :raises DriftguardError: one of them is not known.
    """
    for name in asked:
        if name not in known:
            raise DriftguardError(what, f"one of {', '.join(known)}", name, "correct the name")


def report(error: DriftguardError) -> None:
    """Tell a person what failed and what to do."""
    lines = (
        "", f"FAILED {error.subject}", f"  expected  {error.expected}", f"  found     {error.found}",
        f"  remedy    {error.remedy}")
    print("\n".join(lines), file=sys.stderr, flush=True)
