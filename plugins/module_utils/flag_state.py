# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_flag does: reads, sets and unsets a fleet's kill switches."""

from __future__ import annotations

from typing import Any, Optional, Union

from .audit import audit_arguments
from .errors import DriftguardError
from .lease_owner import user_at_host
from .module_base import Result
from .names import FLAG_PATTERN
from .redis_flags import Flags, change_flag, read_flags
from .redis_gateway import gateway_of
from .untrusted import clean


def run_flag(module: Any) -> Result:
    """Do what the module's option ``state`` asks.

    :raises DriftguardError: an option can't be meant, Redis doesn't answer, or the flag that is read is malformed.
    """
    options = module.params
    name = options["name"]
    if name is not None and not FLAG_PATTERN.match(name):
        raise DriftguardError(
            "option name", "1 to 64 lower-case letters, digits, dashes and underscores, a letter first",
            repr(clean(name)), "give the flag's name as the worker reads it, such as classification")
    said = (options["by"] or user_at_host(), options["reason"] or "", options["run"])
    audit_arguments(*said)
    redis = gateway_of(module)
    flags = read_flags(redis, options["fleet"])
    if options["state"] == "read":
        return _read(flags, options["fleet"], name)
    value = options["value"] if options["state"] == "present" else None
    return _change(module, redis, flags, value, said)


def _read(flags: Flags, fleet: str, name: Optional[str]) -> Result:
    if name in flags.malformed:
        raise DriftguardError(
            f"key {fleet}:flags, field {name}", "true or false", repr(flags.malformed[name]),
            f"find out who wrote it, and set it: worker_flag with name: {name} and value")
    value = flags.values.get(name) if name else None
    return Result(False, _values(flags, value, value, ""))


def _change(module: Any, redis: Any, flags: Flags, value: Optional[bool], said: tuple[str, str, str]) -> Result:
    fleet, name = module.params["fleet"], module.params["name"]
    before, stored = _shown(flags, name), flags.text(name)
    changed, at = before is not value, ""
    if not module.check_mode:
        at = change_flag(redis, fleet, name, value, said)
        changed = bool(at)
        flags = read_flags(redis, fleet)
    else:
        flags.malformed.pop(name, None)
        flags.values.pop(name, None)
        flags.values.update({} if value is None else {name: value})
    return Result(
        changed, _values(flags, before, value, at), _line(name, stored),
        _line(name, "" if value is None else str(value).lower()), f"{fleet}:flags")


def _values(flags: Flags, before: Any, after: Any, at: str) -> dict[str, Any]:
    return {"flags": flags.values, "malformed": flags.malformed, "before": before, "after": after, "at": at or None}


def _shown(flags: Flags, name: str) -> Union[bool, str, None]:
    return flags.values[name] if name in flags.values else flags.malformed.get(name)


def _line(name: str, text: str) -> str:
    return f"{name}: {text or '(not set)'}\n"
