#!/usr/bin/env python3
# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a lab that is up (make lab), for Ansible: all in the group workers, with how they are reached.

DRIFTGUARD_LAB names another lab than ``lab``. Needs Python's standard library alone.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

LABS = Path(__file__).resolve().parents[2] / ".cache" / "lab"


def inventory(place: Path) -> dict[str, Any]:
    """What Ansible asks an inventory for.

    :param place: directory of the lab.
    """
    facts = json.loads((place / "lab.json").read_text(encoding="utf-8"))
    network = facts["subnet"]
    return {
        "workers": {"hosts": list(facts["hosts"]), "vars": {
            "ansible_user": "deploy",
            "ansible_python_interpreter": "/usr/local/bin/lab-python",
            "ansible_ssh_common_args": f"-F {shlex.quote(str(place / 'ssh_config'))}",
            "ansible_control_path_dir": os.environ.get("ANSIBLE_SSH_CONTROL_PATH_DIR") or facts["sockets"],
            "lab_checkout": str(LABS.parents[1]),
            "lab_directory": str(place),
            "lab_base": facts["base"],
            "lab_registry": f"{network}.3:5000",
            "lab_redis_url": f"rediss://workers@{network}.2:6379/0",
        }},
        "_meta": {"hostvars": {name: {"ansible_host": host["address"]} for name, host in facts["hosts"].items()}},
    }


def main() -> int:
    """Print it; exit status 1 where there is no lab."""
    name = os.environ.get("DRIFTGUARD_LAB", "lab")
    try:
        print(json.dumps(inventory(LABS / name), indent=2))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"lab {name}: expected one that is up; found {error}; remedy: make lab", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
