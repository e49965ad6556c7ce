# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Development runners in a command line, by the guards' own rule; files/guard/contract.json holds the two equal.

The guard would stop such a worker at its start. Saying so when the compose file is rendered costs nothing yet.
"""

from __future__ import annotations

from typing import Optional, Sequence

DEV_RUNNERS = (
    "tsx", "ts-node", "ts-node-dev", "ts-node-esm", "ts-node-script", "ts-node-cwd", "ts-node-transpile-only",
    "ts-script", "tsnd", "nodemon", "node-dev", "vite-node", "babel-node", "swc-node", "esbuild-register",
    "esbuild-runner", "esno", "watchfiles", "-mwatchfiles", "watchmedo", "watchdog.watchmedo", "-mwatchdog.watchmedo",
    "--reload", "--watch", "--watch-path", "flask --debug",
)
SEPARATORS = " \t\n/=,:;&|()<>\"'`@{}[]\\$"


def find_runner(command: Sequence[str]) -> Optional[str]:
    """The first development runner in a command line, None for none."""
    words = set(" ".join(command).translate(dict.fromkeys(map(ord, SEPARATORS), " ")).split(" "))
    for runner in DEV_RUNNERS:
        if words.issuperset(runner.split(" ")):
            return runner
    return None
