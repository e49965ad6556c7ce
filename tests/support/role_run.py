# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a role or a playbook against hosts that a test describes, and reads the facts it leaves."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import yaml
from support.fleet import PROJECT, Run

__all__ = ["LOCAL", "Ansible", "facts"]

LOCAL: dict[str, Any] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def facts(run: Run, host: str = "here") -> dict[str, Any]:
    """The role's public fact as the run left it on a host."""
    found = re.findall(rf"FACT {re.escape(host)} ([A-Za-z0-9+/=]+)", run.output)
    assert found, run.output
    return dict(json.loads(base64.b64decode(found[-1])))


@dataclass
class Ansible:
    """Ansible with an inventory of its own.

    :param directory: for its files.
    :param hosts: variables by host, all in the group workers.
    """

    directory: Path
    hosts: Mapping[str, Mapping[str, Any]]

    def role(self, name: str, *arguments: str, **variables: Any) -> Run:
        """Apply a role; its fact ``<role>_result`` is in the output (:func:`facts`)."""
        fact = f"{name}_result"
        shown = f"FACT {{{{ inventory_hostname }}}} {{{{ {fact} | to_json | b64encode }}}}"
        play = {
            "hosts": "workers", "gather_facts": False, "become": True, "vars": variables,
            "roles": [f"driftguard.workers.{name}"],
            "post_tasks": [{"ansible.builtin.debug": {"msg": shown}, "when": f"{fact} is defined"}]}
        path = self.directory / f"{name}.yml"
        path.write_text(yaml.safe_dump([play]))
        return self.playbook(path, *arguments)

    def playbook(self, path: Path, *arguments: str, variables: Mapping[str, Any] | None = None) -> Run:
        """Run a playbook to its end.

        :param variables: of the group workers.
        """
        inventory = self.directory / "inventory.yml"
        hosts = {name: dict(values) for name, values in self.hosts.items()}
        group = {"workers": {"hosts": hosts, "vars": dict(variables or {})}}
        inventory.write_text(yaml.safe_dump(group, sort_keys=False))
        log = self.directory / "log"
        with log.open("w") as stream:
            # A pipe that a daemon inherits would never end.
            status = subprocess.run(
                [str(Path(sys.executable).parent / "ansible-playbook"), str(path), "-i", str(inventory), *arguments],
                cwd=PROJECT, env=self._environment(), stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                check=False).returncode
        output = log.read_text()
        return Run(status, output, recap(output))

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1", "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp")}


def recap(output: str) -> dict[str, int]:
    """The numbers of a run's recap, all hosts together."""
    totals: dict[str, int] = {}
    for name, number in re.findall(r"(\w+)=(\d+)", output.rpartition("PLAY RECAP")[2]):
        totals[name] = totals.get(name, 0) + int(number)
    return totals
