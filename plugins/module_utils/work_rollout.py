# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_rollout."""

from __future__ import annotations

from .attendance import ATTENDED_SPEC
from .engine import Engine
from .module_base import FLEET_SPEC, ROOT_SPEC, Work, safe_point_of
from .rollout_keep import bring_or_keep

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
    "bake": {"type": "float", "default": 0.0},
    "max_restarts": {"type": "int", "default": 0},
    "max_failed_jobs": {"type": "float"},
    "min_jobs": {"type": "int", "default": 20},
    "lock_wait": {"type": "float", "default": 60.0},
    **ATTENDED_SPEC,
    "attendance": {"type": "path"},
}
ROLLOUT = Work(
    ARGUMENTS, lambda module: bring_or_keep(Engine.connect(), module.params, module.check_mode, safe_point_of(module)))
