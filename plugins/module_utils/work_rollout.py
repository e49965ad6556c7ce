# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_rollout."""

from __future__ import annotations

from typing import Any

from .attendance import ATTENDED_SPEC
from .bake_limits import LIMITS_SPEC
from .engine import Engine
from .module_base import FLEET_SPEC, ROOT_SPEC, Result, Work, safe_point_of
from .redis_url import passwords_in
from .rollout_keep import bring_or_keep
from .rollout_proof import PROOF_SPEC

ARGUMENTS = {
    **FLEET_SPEC,
    **ROOT_SPEC,
    "host": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "kept", "settled", "absent"], "default": "present"},
    "revision": {"type": "str", "default": "current"},
    "desired": {"type": "dict"},
    "fenced": {"type": "list", "elements": "str", "default": []},
    "services": {"type": "list", "elements": "str", "default": []},
    "prune": {"type": "str", "choices": ["none", "project", "all"], "default": "none"},
    "generation": {"type": "int", "required": True},
    "published": {"type": "int"},
    "run": {"type": "str", "default": ""},
    "wait_timeout": {"type": "float", "default": 120.0},
    "stabilize": {"type": "float", "default": 20.0},
    **LIMITS_SPEC,
    "lock_wait": {"type": "float", "default": 60.0},
    "proof": PROOF_SPEC,
    **ATTENDED_SPEC,
    "attendance": {"type": "path"},
}


def _bring(module: Any) -> Result:
    if module.params["proof"] is not None:
        module.no_log_values.update(passwords_in(module.params["proof"]["redis_url"]))
    return bring_or_keep(Engine.connect(), module.params, module.check_mode, safe_point_of(module))


ROLLOUT = Work(ARGUMENTS, _bring)
