# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module of the collection shares: argument-spec fragments and the way from a result to an exit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional

from ansible.module_utils.basic import AnsibleModule

from .errors import DriftguardError
from .names import HOST_ROOT


@dataclass(frozen=True)
class Result:
    """What a module did, or in check mode would do.

    :param changed: anything differs from before.
    :param values: documented return values.
    :param before: the state before, as text for the diff; likewise after.
    """

    changed: bool
    values: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    after: str = ""
    header: str = ""


class FailedResult(DriftguardError):
    """A failure that also carries documented return values (what was done, what was proved) for the evidence."""

    def __init__(self, error: DriftguardError, values: dict[str, Any], changed: bool = False) -> None:
        super().__init__(error.subject, error.expected, error.found, error.remedy)
        self.values = values
        self.changed = changed


FLEET_SPEC: dict[str, Any] = {
    "fleet": {"type": "str", "required": True},
}
ROOT_SPEC: dict[str, Any] = {
    "root": {"type": "path", "default": HOST_ROOT},
}
SPEC_SPEC: dict[str, Any] = {
    "services": {"type": "dict", "required": True},
    "defaults": {"type": "dict", "default": {}},
    "placement": {"type": "list", "elements": "str"},
}
REDIS_SPEC: dict[str, Any] = {
    "redis_url": {"type": "str", "required": True},
    "redis_password": {"type": "str", "no_log": True},
    "redis_ca_file": {"type": "path"},
    "redis_timeout": {"type": "float", "default": 5.0},
}
REGISTRY_SPEC: dict[str, Any] = {
    "registry_username": {"type": "str"},
    "registry_password": {"type": "str", "no_log": True},
}
REGISTRY_TOGETHER = [("registry_username", "registry_password")]
QUEUES_SPEC: dict[str, Any] = {
    "prefix": {"type": "str"},
}


@dataclass(frozen=True)
class Work:
    """What a module does: its options and the function behind it.

    :param arguments: its argument spec.
    :param action: does the work and raises :class:`DriftguardError` on failure. Of the module that it gets it uses
        ``params``, ``check_mode``, ``warn`` and ``no_log_values``, and :func:`safe_point_of`.
    :param checks: more of AnsibleModule's own that its validator knows too (``required_if``, ``required_together`` …).
    """

    arguments: dict[str, Any]
    action: Callable[[Any], Result]
    checks: Mapping[str, Any] = field(default_factory=dict)


def safe_point_of(module: Any) -> Callable[[], None]:
    """What a work that takes long calls now and then: it raises where nobody waits for its end any more.

    :param module: what the work got; a module of its own has none, and isn't stopped.
    """
    found: Callable[[], None] = getattr(module, "safe_point", lambda: None)
    return found


def run_work(work: Work) -> None:
    """Run a module's work from arguments to exit."""
    run_module(work.arguments, work.action, **work.checks)


def run_module(
    argument_spec: dict[str, Any],
    action: Callable[[AnsibleModule], Result],
    **options: Any,
) -> None:
    """Run a module from arguments to exit.

    :param action: does the work and raises :class:`DriftguardError` on failure.
    :param options: more of AnsibleModule's own (``required_if``, ``mutually_exclusive`` …).
    """
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True, **options)  # type: ignore[no-untyped-call]
    try:
        values = return_values(lambda: action(module), module._diff)
    except KeyboardInterrupt:
        values = _failure(_interrupted())
    if values.get("failed") is True:
        module.fail_json(**values)
    module.exit_json(**values)


def return_values(work: Callable[[], Result], is_diff: bool) -> dict[str, Any]:
    """What a module returns, done or failed; the only place where errors become results.

    :param is_diff: whether to return what differs.
    :raises KeyboardInterrupt: as the work does.
    """
    try:
        return exit_values(work(), is_diff)
    except FailedResult as error:
        return {"changed": error.changed, **error.values, **_failure(error)}
    except DriftguardError as error:
        return _failure(error)
    except Exception as error:  # the boundary: no traceback may reach a user
        return _failure(_internal(error))


def exit_values(result: Result, is_diff: bool) -> dict[str, Any]:
    """What a module returns that has done its work."""
    values: dict[str, Any] = {"changed": result.changed, **result.values}
    if is_diff and result.before != result.after:
        values["diff"] = {
            "before": result.before,
            "after": result.after,
            "before_header": result.header,
            "after_header": result.header,
        }
    return values


def _failure(error: DriftguardError) -> dict[str, Any]:
    return {**error.as_result(), "failed": True}


def _interrupted() -> DriftguardError:
    return DriftguardError(
        "this task", "to run to its end", "an interrupt", "run the playbook again: it heals what was left and converges"
    )


def _internal(error: Exception) -> DriftguardError:
    where = _innermost(error)
    return DriftguardError(
        "this module",
        "no unexpected error",
        f"{type(error).__name__}: {error}{where}",
        "this is a defect: please report it with the line above and the task's arguments",
    )


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    last: Optional[Any] = None
    while trace is not None:
        last, trace = trace, trace.tb_next
    if last is None:
        return ""
    code = last.tb_frame.f_code
    return f" ({code.co_filename.rsplit('/', 1)[-1]}:{last.tb_lineno} {code.co_name})"
