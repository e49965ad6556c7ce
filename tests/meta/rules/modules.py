# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's documentation against its argument spec, with the fragments of both merged in."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Iterator, Mapping
from unittest import mock

from .files import ROOT, below

COLLECTION = "driftguard.workers"
PYTHON_NAME = "ansible_collections.driftguard.workers.plugins"
MODULE_BASE = f"{PYTHON_NAME}.module_utils.module_base"
COMPARED = ("type", "required", "default", "choices", "elements", "aliases")
BLANK: Mapping[str, Any] = {"type": "str", "required": False}


class Caught(Exception):
    """Carries what a module gave to AnsibleModule; ends the module there."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments


def names() -> list[str]:
    """All modules."""
    return [Path(path).stem for path in below("plugins/modules/", suffix=".py")]


@cache
def documentation() -> dict[str, dict[str, Any]]:
    """What ansible-doc says of every module, fragments merged in: ``doc``, ``examples`` and ``return``."""
    program = str(Path(sys.executable).with_name("ansible-doc"))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        [program, "--metadata-dump", "--no-fail-on-errors", COLLECTION], cwd=ROOT, env=environment, check=True,
        stdout=subprocess.PIPE)
    found = json.loads(done.stdout)["all"].get("module", {})
    return {name.rpartition(".")[2]: facts for name, facts in found.items()}


def argument_spec(name: str) -> dict[str, Any]:
    """What a module gives to AnsibleModule as its argument spec."""
    def catch(**arguments: Any) -> None:
        raise Caught(arguments)

    module = importlib.import_module(f"{PYTHON_NAME}.modules.{name}")
    with mock.patch(f"{MODULE_BASE}.AnsibleModule", catch):
        try:
            module.main()
        except Caught as caught:
            return dict(caught.arguments["argument_spec"])
    raise AssertionError(f"{name}.main() doesn't make an AnsibleModule through module_base.run_module")


def differences(documented: Mapping[str, Any], spec: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What documentation and argument spec say differently, suboptions too."""
    for option in sorted({*documented, *spec}):
        path = f"{where}{option}"
        if option not in spec:
            yield f"{path}: documented, but not in the argument spec"
        elif option not in documented:
            yield f"{path}: in the argument spec, but not documented"
        else:
            yield from _option_differences(path, documented[option], spec[option])


def _option_differences(path: str, documented: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[str]:
    for key in COMPARED:
        said, meant = (_plain(key, option.get(key, BLANK.get(key))) for option in (documented, spec))
        if said != meant:
            yield f"{path}: documented {key} {said!r}, argument spec {meant!r}"
    if not documented.get("description"):
        yield f"{path}: no description"
    yield from differences(documented.get("suboptions") or {}, spec.get("options") or {}, f"{path}.")


def _plain(key: str, value: Any) -> Any:
    """A value in one form on both sides: documented dictionaries of choices are their keys, empty means none."""
    if key in ("choices", "aliases"):
        return sorted(str(choice) for choice in value or [])
    return value
