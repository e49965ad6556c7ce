# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The system packages that set-up adds where they are missing. Docker comes by the role docker_host instead."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import IO

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from .processes import as_root, run_logged
from .steps import Step, must

#: program -> the Debian package that has it
DEMO = {"git": "git"}
LAB = {**DEMO, "openssl": "openssl", "ssh": "openssh-client"}
LINT = {**DEMO, "shellcheck": "shellcheck"}
TEST = {
    **LAB,
    **LINT,
    "busybox": "busybox",
    "dash": "dash",
    "redis-server": "redis-server",
    "ss": "iproute2",
    "strace": "strace",
}
PROGRAMS = {"demo": DEMO, "lab": LAB, "lint": LINT, "test": TEST}
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")


def step(profile: str) -> Step:
    """The step that installs what a profile needs."""
    return Step(
        name=f"packages-{profile}", title=f"System packages ({', '.join(missing(profile))})", inputs=lambda: "",
        present=lambda: not missing(profile), action=partial(_install, profile))


def missing(profile: str) -> list[str]:
    """Packages of a profile whose program this machine doesn't have."""
    return sorted(package for program, package in PROGRAMS[profile].items() if not _has(program))


def _has(program: str) -> bool:
    return shutil.which(program) is not None or any(Path(place, program).exists() for place in ("/usr/sbin", "/sbin"))


def _install(profile: str, log: IO[bytes]) -> None:
    wanted = missing(profile)
    if shutil.which("apt-get") is None:
        raise DriftguardError(
            "system packages", "Debian's apt-get", "this machine has none",
            f"install these by hand: {' '.join(wanted)}")
    install = as_root([*APT, "install", "--yes", "--no-install-recommends", *wanted])
    if run_logged(install, log):  # no package lists yet, or lists from before the mirror's last update
        run_logged(as_root([*APT, "update"]), log)
        must(install, log, "mend apt-get on this machine (the lines above say what it wants) and run again")
    if "redis-server" in wanted and Path("/run/systemd/system").is_dir():
        # Tests start their own on other ports; a service nobody asked for must not stay.
        stop = as_root(["systemctl", "disable", "--now", "redis-server"])
        must(stop, log, "stop the service redis-server by hand and run again")
