# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``tools/setup demo|lab|lint|test``: everything this checkout needs on this machine, made once and then left alone."""

from __future__ import annotations

import os
import sys

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from . import dependencies, engine, packages, python_packages
from .steps import Step, report, run_steps

PROFILES = ("demo", "lab", "lint", "test")


def steps(profile: str) -> list[Step]:
    """The steps of a profile.

    :param profile: ``demo`` deploys only, ``lab`` over SSH too, ``lint`` needs no Docker, ``test`` is everything.
    """
    needs_engine = [engine.step()] if profile != "lint" else []
    return [packages.step(profile), *python_packages.steps(profile), dependencies.step(), *needs_engine]


def main() -> int:
    """Run a profile's steps."""
    asked = sys.argv[1:]
    if len(asked) != 1 or asked[0] not in PROFILES:
        found = " ".join(asked) or "no argument"
        report(DriftguardError("tools/setup", f"one of {', '.join(PROFILES)}", found, "name one of them"))
        return 2
    os.umask(0o022)
    try:
        run_steps(steps(asked[0]))
    except DriftguardError as error:
        report(error)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
