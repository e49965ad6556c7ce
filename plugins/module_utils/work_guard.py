# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_guard."""

from __future__ import annotations

from .guard_files import install_guards
from .module_base import FLEET_SPEC, ROOT_SPEC, Work

ARGUMENTS = {
    **FLEET_SPEC,
    **ROOT_SPEC,
    "files": {"type": "dict", "default": {}},
    "digests": {"type": "dict", "default": {}},
    "generation": {"type": "int"},
    "run": {"type": "str", "default": ""},
    "lock_wait": {"type": "float", "default": 60.0},
}
GUARD = Work(
    ARGUMENTS, lambda module: install_guards(module.params, module.check_mode),
    {"required_one_of": [("files", "digests")]})
