# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_release."""

from __future__ import annotations

from .module_base import FLEET_SPEC, REDIS_SPEC, ROOT_SPEC, Work
from .release_change import run_release

RELEASE_SPEC = {"release_id": {"type": "str", "required": True}, "sha": {"type": "str", "required": True}}
ARGUMENTS = {
    **FLEET_SPEC,
    **ROOT_SPEC,
    **REDIS_SPEC,
    "redis_url": {"type": "str"},
    "state": {"type": "str", "choices": ["read", "rolling", "settled", "fenced"], "default": "read"},
    "scope": {"type": "str", "choices": ["fleet", "host"], "default": "fleet"},
    "target": {"type": "dict", "options": RELEASE_SPEC},
    "generation": {"type": "int"},
    "run": {"type": "str", "default": ""},
    "running": {"type": "list", "elements": "dict", "options": RELEASE_SPEC},
    "allowed": {"type": "list", "elements": "dict", "options": RELEASE_SPEC},
    "fenced": {"type": "list", "elements": "dict", "options": RELEASE_SPEC, "default": []},
    "revisions": {"type": "dict", "default": {}},
    "by": {"type": "str", "default": ""},
    "token": {"type": "str", "default": "", "no_log": False},
    "lock_wait": {"type": "float", "default": 60.0},
}
NEEDED = [
    ("scope", "fleet", ("redis_url",)),
    ("state", "rolling", ("target", "generation")),
    ("state", "settled", ("target", "generation")),
    ("state", "fenced", ("target", "generation", "fenced")),
]
RELEASE = Work(ARGUMENTS, run_release, {"required_if": NEEDED})
