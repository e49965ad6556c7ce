# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_compose."""

from __future__ import annotations

from typing import Any

from .compose_host import write_compose
from .module_base import FLEET_SPEC, ROOT_SPEC, SPEC_SPEC, Result, Work
from .redis_url import passwords_in

ARGUMENTS = {
    **FLEET_SPEC,
    **ROOT_SPEC,
    **SPEC_SPEC,
    "host": {"type": "str", "required": True},
    "release": {"type": "dict"},
    "generation": {"type": "int"},
    "run": {"type": "str", "default": ""},
    "lock_wait": {"type": "float", "default": 60.0},
    "redis_url": {"type": "str", "required": True},
    "redis_password": {"type": "str", "no_log": True},
    "redis_user_per_release": {"type": "bool", "default": False},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "networks": {"type": "list", "elements": "str", "default": []},
    "production": {"type": "bool", "default": True},
}


def _write(module: Any) -> Result:
    # One that is refused for its password must not show it in what -vvv says of the invocation.
    module.no_log_values.update(passwords_in(module.params["redis_url"]))
    return write_compose(module.params, module.check_mode)


COMPOSE = Work(ARGUMENTS, _write)
