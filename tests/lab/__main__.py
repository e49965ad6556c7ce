# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as containers on this machine, with a registry and a Redis, and the faults that can befall them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from tools.steps import report

from .faults import FAULTS, Asked
from .life import bring_down, bring_up, describe
from .outer import Outer
from .state import DEFAULT, Lab

PROGRAM = ".venv/bin/python -m tests.lab"
EXAMPLES = f"""\
examples:
  {PROGRAM} up --hosts 3
  {PROGRAM} status
  {PROGRAM} kill-engine host2
  {PROGRAM} slow host1 200
  ssh -F .cache/lab/{DEFAULT}/ssh_config host1
  {PROGRAM} down

Each command has its own --help. Exit status: 0 done, 1 it could not be, 2 not understood.
"""
ARGUMENTS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "host": (("host",), {"help": "name of a host, such as host1"}),
    "milliseconds": (("milliseconds",), {"type": int, "help": "that data is held back, each way"}),
    "break_after": (("--break-after",), {
        "type": int, "default": 0, "metavar": "BYTES", "help": "break each connection once that much has passed"}),
    "seconds": (("seconds",), {"type": int, "help": "forward, or backward where negative; 0 for none"}),
    "disk": (("--disk",), {"choices": ("docker", "opt"), "default": "docker", "help": "which (default: docker)"}),
    "ssh_only": (("--ssh-only",), {"action": "store_true", "help": "cut SSH alone: its workers still reach Redis"}),
}


def parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    formatter = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, epilog=EXAMPLES, formatter_class=formatter)
    whole.add_argument("--name", default=DEFAULT, help=f"which lab; several may be up (default: {DEFAULT})")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="Start a lab, or add what it lacks.", epilog=f"example: {PROGRAM} up --hosts 3")
    up.add_argument("--hosts", type=int, default=3, help="how many at least (default: 3)")
    up.add_argument("--disk", default="3g", help="each engine's disk, held in memory (default: 3g)")
    commands.add_parser("down", help="Remove the lab and all it has.", epilog=f"example: {PROGRAM} down")
    commands.add_parser("status", help="Show hosts, services and faults.", epilog=f"example: {PROGRAM} status")
    for name, fault in FAULTS.items():
        one = commands.add_parser(
            name, help=fault.text.split(". ")[0].rstrip(".") + ".", description=fault.text,
            epilog=f"example: {PROGRAM} {fault.example}")
        for argument in fault.takes:
            flags, options = ARGUMENTS[argument]
            one.add_argument(*flags, **options)  # type: ignore[arg-type]
    return whole


def run(asked: argparse.Namespace) -> list[str]:
    """Do what was asked; lines for a person.

    :raises DriftguardError: it could not be done.
    """
    if asked.command == "up":
        lab = bring_up(asked.name, asked.hosts, asked.disk)
        chosen = "" if asked.name == DEFAULT else f"DRIFTGUARD_LAB={asked.name} "
        deploy = f"{chosen}.venv/bin/ansible-playbook -i inventories/lab playbooks/deploy-workers.yml"
        return [*_table(lab), "", f"Deploy to it:  {deploy}",
                f"Look around:   ssh -F {_short(lab.directory / 'ssh_config')} host1"]
    if asked.command == "down":
        return [f"removed  {thing}" for thing in bring_down(asked.name)] or [f"There is no lab {asked.name}."]
    lab = Lab.read(asked.name)
    if asked.command == "status":
        return _table(lab)
    known = {name: value for name, value in vars(asked).items() if name in Asked.__dataclass_fields__}
    return [FAULTS[asked.command].does(Outer(), lab, Asked(**known))]


def _table(lab: Lab) -> list[str]:
    rows = [("PART", "STATE", "ADDRESS", "WHAT", "FAULTS")]
    rows += [(row["name"], row["state"], row["address"], row.get("kind", ""), ", ".join(row["faults"]) or "none")
             for row in describe(lab)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> int:
    """Run one command."""
    asked = parser().parse_args()
    try:
        print("\n".join(run(asked)), flush=True)
    except DriftguardError as error:
        report(error)
        return 1
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, subprocess.SubprocessError) as error:
        report(DriftguardError(f"lab {asked.name}", "programs that run", str(error)[:300], "tools/setup lab"))
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on, `down` removes what there is", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
