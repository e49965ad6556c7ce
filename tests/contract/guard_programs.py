# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the guards as the processes they are, by every interpreter that this machine has."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

from contract.guard_cases import (
    Files,
    Outcome,
    command_of,
    copy_guards,
    environment_of,
    needs_other_user,
    write_files,
    write_stubs,
)

NOBODY = 65534
LONGEST = 20.0  # seconds; a guard that hangs on a file fails its case
OLDEST, NEWEST = (3, 8), (3, 99)


@dataclass(frozen=True)
class Guard:
    """One guard under one interpreter; ``interpreter`` is the command that precedes the guard's file."""

    name: str
    interpreter: tuple[str, ...]
    file: str

    @property
    def is_python(self) -> bool:
        return self.file.endswith(".py")

    @property
    def reads_json(self) -> bool:
        """Whether its host record is guard.json."""
        return not self.file.endswith(".sh")

    @property
    def only_checks(self) -> bool:
        """Node can't become another program: as a program its guard decides only."""
        return self.file.endswith(".cjs")


@dataclass(frozen=True)
class Workshop:
    """A place that every user may read: copies of the guards, and stubs of the programs that the cases start."""

    root: Path

    @property
    def guards(self) -> Path:
        return self.root / "guards"

    @property
    def stubs(self) -> Path:
        return self.root / "stubs"

    def place(self) -> Path:
        """A new empty directory."""
        place = Path(tempfile.mkdtemp(dir=self.root))
        place.chmod(0o755)
        return place


def open_workshop() -> Iterator[Workshop]:
    root = Path(tempfile.mkdtemp(prefix="driftguard-guards-"))
    root.chmod(0o755)
    shop = Workshop(root)
    copy_guards(shop.guards)
    write_stubs(shop.stubs)
    yield shop
    shutil.rmtree(root)


@functools.cache
def all_guards() -> tuple[Guard, ...]:
    pythons = [Guard(f"python{version}", (path, "-IS"), "version_guard.py") for version, path in _pythons().items()]
    shells = [("dash", ("dash",)), ("busybox", ("busybox", "sh")), ("bash", ("bash", "--posix"))]
    found = [(name, (path, *words[1:])) for name, words in shells if (path := shutil.which(words[0]))]
    return (*pythons, *(Guard(name, command, "version_guard.sh") for name, command in found))


@functools.cache
def node_guards() -> tuple[Guard, ...]:
    """The Node guard under this machine's Node, none where there is none."""
    path = shutil.which("node")
    return (Guard("node", (path,), "version-guard.cjs"),) if path else ()


def _pythons() -> dict[str, str]:
    """The system's Python (any user can start it), this one, and the oldest and newest supported that pyenv has."""
    candidates = ["/usr/bin/python3", sys.executable]
    pyenv = [(tuple(int(part) for part in path.parents[1].name.split(".")[:2]), str(path))
             for path in Path.home().glob(".pyenv/versions/3.*/bin/python3")]
    supported = sorted(version for version in pyenv if OLDEST <= version[0] <= NEWEST)
    candidates += [supported[0][1], supported[-1][1]] if supported else []
    probe = "import sys; print('%d.%d' % sys.version_info[:2])"
    found: dict[str, str] = {}
    for path in candidates:
        if os.path.exists(path):
            done = subprocess.run([path, "-IS", "-c", probe], capture_output=True, text=True, check=True)
            found.setdefault(done.stdout.strip(), path)
    return found


@functools.cache
def runs_as_nobody(guard: Guard) -> bool:
    """Whether another user can start this interpreter (one below /root it can't)."""
    if os.getuid() != 0:
        return True
    try:
        program = {".py": ["-c", "pass"], ".sh": ["-c", ":"], ".cjs": ["-e", "0"]}[Path(guard.file).suffix]
        done = subprocess.run([*guard.interpreter, *program], user=NOBODY, check=False, cwd="/")
    except PermissionError:
        return False
    return done.returncode == 0


def guard_command(guard: Guard, guards: Path, files: Files, options: Sequence[str] = ()) -> list[str]:
    record = ["--record", str(files.record)] if files.record is not None else []
    if guard.only_checks:
        options = [*options, "--check"]
    return [*guard.interpreter, str(guards / guard.file), *options, "--image-file", str(files.image), *record, "--"]


def run_case(guard: Guard, case: Mapping[str, Any], shop: Workshop, guards: Optional[Path] = None) -> Outcome:
    """Let a guard decide a case, and say what became of it.

    :param guards: where the guards are, when it isn't the workshop's copy.
    """
    files = write_files(case, shop.place())
    variables = {**environment_of(case), "PATH": str(shop.stubs)}
    as_nobody = needs_other_user(case) and os.getuid() == 0
    decided = run([*guard_command(guard, guards or shop.guards, files), *command_of(case)], variables, as_nobody)
    if not guard.only_checks or decided.status != 0:
        return decided
    # What a check allows is started, as whoever asked for it would.
    started = run(_found(command_of(case), shop.stubs), variables, as_nobody)
    return Outcome(started.status, decided.stdout + started.stdout, decided.stderr + started.stderr)


def _found(command: Sequence[str], stubs: Path) -> list[str]:
    return [command[0] if "/" in command[0] else str(stubs / command[0]), *command[1:]]


def run(command: Sequence[Any], environment: Any, as_nobody: bool = False) -> Outcome:
    """Run a command to its end, with exactly these variables (all strings, or all bytes)."""
    user = NOBODY if as_nobody else None
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST, check=False, cwd="/",
        user=user, group=user, extra_groups=[] if as_nobody else None)
    return Outcome(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
