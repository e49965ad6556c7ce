# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stages of ``make test``: what each runs, for how long at most, and which may run beside each other."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from .paths import BUILD, CACHE, COLLECTIONS, PYTHON, VENV
from .processes import as_root, tool_environment

MINUTE = 60.0
# Molecule's own place is the same for checkouts of the same name, and after a run that was stopped it still believes
# that everything is there. Here each run starts without.
MOLECULE_STATE = CACHE / "molecule-state"


@dataclass(frozen=True)
class Stage:
    """One stage.

    :param command: its program and arguments, ``{results}`` standing for the report it writes.
    :param time_limit: seconds after which it is stopped and has failed.
    :param root: needs the engine and /opt/driftguard: runs through sudo for a user who isn't root.
    :param counted: its exit status is a test of its own, beside those it reports.
    :param on_request: runs only when it is named.
    :param settings: environment variables of its own.
    """

    name: str
    command: tuple[str, ...]
    time_limit: float
    root: bool = False
    counted: str = ""
    on_request: bool = False
    settings: tuple[tuple[str, str], ...] = ()


def _pytest(name: str, time_limit: float, root: bool, *more: str, directory: str = "") -> Stage:
    place = f"tests/{directory or name}"
    command = (str(PYTHON), "-m", "pytest", "-v", "--durations=10", "--junitxml={results}", *more, place)
    return Stage(name, command, time_limit, root)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("lint", (str(PYTHON), "-m", "tools.lint", "--junit", "{results}"), 15 * MINUTE),
        _pytest("unit", 10 * MINUTE, root=False),
        _pytest("contract", 15 * MINUTE, root=True),
        _pytest("meta", 10 * MINUTE, root=False),
        _pytest("model", 15 * MINUTE, root=False),
        # Deploys mostly wait, for a grace period, a window, a registration: more of them run than there are cores. A
        # file's tests share what they set up, so a file is what is handed out.
        _pytest("integration", 75 * MINUTE, True, "-m", "not alone and not long", "-n", "4", "--dist", "loadfile",
               "--no-loadscope-reorder"),
        _pytest("engine", 15 * MINUTE, True, "-m", "alone", directory="integration"),
        _pytest("lab", 70 * MINUTE, True, "-m", "not long"),
        # Hours: a bare Debian that gets an engine, more cases of what the stage integration has a few of ...
        replace(_pytest("long", 120 * MINUTE, True, "-m", "long and not alone", "-n", "4", "--dist", "loadfile",
                        directory="integration"), on_request=True),
        # ... and what happens to a rollout in its middle, at every point and by every fault that a lab can make.
        replace(_pytest("faults", 360 * MINUTE, True, "-m", "long", directory="lab"), on_request=True),
        # What the stage model has a hundred of, each time others.
        replace(_pytest("deep", 360 * MINUTE, False, "-s", "--timeout=0", directory="model/test_model.py"),
                on_request=True, settings=(("DRIFTGUARD_MODEL_EXAMPLES", "5000"),)),
        Stage(
            "molecule", (str(VENV / "bin" / "molecule"), "test"), 15 * MINUTE, root=True,
            counted="the whole sequence, idempotence included"),
        Stage(
            "multihost", (str(VENV / "bin" / "molecule"), "test", "-s", "multihost"), 25 * MINUTE, root=True,
            counted="the whole sequence on three hosts, idempotence included"),
    )
}
# Groups one after another; in a group, lanes side by side; in a lane, stages one after another. The light ones share
# the machine, what is timed against the engine has it for itself.
GROUPS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("lint", "meta", "model"), ("unit", "contract")),
    # Hosts of a lab mostly wait for each other.
    (("integration",), ("lab",)),
    (("engine", "molecule", "multihost"),),
    (("long", "deep"), ("faults",)),
)


def prepared(stage: Stage, results: Path) -> tuple[list[str], dict[str, str]]:
    """The command and environment of a stage.

    :raises DriftguardError: it needs root and this user can't become root.
    """
    command = [part.format(results=results) for part in stage.command]
    shutil.rmtree(MOLECULE_STATE, ignore_errors=True)
    environment = {
        **tool_environment(), "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1", "MOLECULE_GLOB": "molecule/*/molecule.yml",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(MOLECULE_STATE), **dict(stage.settings)}
    return (as_root(command, environment) if stage.root else command), environment


def give_back() -> Optional[list[str]]:
    """The command that gives this user what root wrote in the checkout; None when this user is root."""
    if os.geteuid() == 0:
        return None
    places = [str(place) for place in (CACHE, BUILD, COLLECTIONS) if place.exists()]
    return as_root(["chown", "-R", "--from=root", f"{os.getuid()}:{os.getgid()}", *places])
