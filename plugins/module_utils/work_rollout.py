# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and the work of worker_rollout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .attendance import ATTENDED_SPEC, PRIVATE, take_private
from .bake_limits import LIMITS_SPEC
from .engine import Engine
from .errors import DriftguardError
from .module_base import FLEET_SPEC, ROOT_SPEC, Result, Work, safe_point_of
from .redis_url import passwords_in
from .rollout_keep import bring_or_keep
from .rollout_proof import PRIVATE_OPTIONS, PROOF_SPEC

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
    options = {**module.params, **_private(module)}
    if options["proof"] is not None:
        module.no_log_values.update(passwords_in(options["proof"]["redis_url"]))
    return bring_or_keep(Engine.connect(), options, module.check_mode, safe_point_of(module))


def _private(module: Any) -> dict[str, Any]:
    """The options that the controller left in the run's directory, in their form; none where it left nothing.

    :raises DriftguardError: what is there is something else.
    """
    directory = Path(module.params["attendance"] or "/")
    if not (directory / PRIVATE).is_file():
        return {}
    spec = {name: ARGUMENTS[name] for name in PRIVATE_OPTIONS}
    try:
        given = dict(json.loads(take_private(directory)))
    except (ValueError, TypeError) as error:
        raise DriftguardError("option attendance", "options in the run's directory", str(error), "run again") from error
    found = ArgumentSpecValidator(spec).validate(given)  # type: ignore[no-untyped-call]
    module.no_log_values.update(found._no_log_values)
    if found.error_messages:
        raise DriftguardError(
            "options in the run's directory", "what the module takes", "; ".join(found.error_messages), "run again")
    return dict(found.validated_parameters)


ROLLOUT = Work(ARGUMENTS, _bring)
