# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the interpreter's tasks do: ansible-core's own actions, and the call of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from model.playbook import Task, UnknownPlaybook
from model.templates import Scope

if TYPE_CHECKING:
    from model.interpreter import Frame, Run

__all__ = ["ACTIONS", "INCLUDES", "LOCALHOST", "Result", "module"]

LOCALHOST = "localhost"
Result = dict[str, Any]


def module(run: Run, task: Task, frame: Frame, host: str, scope: Scope, _new: dict[str, Any]) -> Result:
    arguments = scope.template(task.arguments)
    target = scope.template(frame.delegate_to) if frame.delegate_to is not None else host
    if target != LOCALHOST and not run.world.reaches(run, target):
        # The collection's action plugins call what is delegated failed then, and not its host unreachable.
        how = "failed" if frame.delegate_to is not None else "unreachable"
        return {how: True, "msg": f"Failed to connect to the host via ssh: {target}"}
    check_mode = run.check_mode if frame.check_mode is None else bool(scope.template(frame.check_mode))
    return run.world.module(run, target, task.action.rpartition(".")[2], arguments, check_mode or run.check_mode)


def _set_fact(_run: Run, task: Task, _frame: Frame, _host: str, scope: Scope, new: dict[str, Any]) -> Result:
    new.update(scope.template(task.arguments))
    return {}


def _assert(_run: Run, task: Task, _frame: Frame, _host: str, scope: Scope, _new: dict[str, Any]) -> Result:
    that = task.arguments["that"]
    if set(task.arguments) - {"that", "quiet", "fail_msg", "msg"}:
        raise UnknownPlaybook(f"{task.where}, task {task.name}: {sorted(task.arguments)}")
    if scope.holds(tuple(that) if isinstance(that, list) else (that,)):
        return {}
    said = task.arguments.get("fail_msg", task.arguments.get("msg", "Assertion failed"))
    return {"failed": True, "msg": scope.template(said)}


def _fail(_run: Run, task: Task, _frame: Frame, _host: str, scope: Scope, _new: dict[str, Any]) -> Result:
    return {"failed": True, "msg": scope.template(task.arguments)["msg"]}


def _debug(run: Run, task: Task, _frame: Frame, _host: str, scope: Scope, _new: dict[str, Any]) -> Result:
    run.said.append(str(scope.template(task.arguments)["msg"]))
    return {}


INCLUDES = ("ansible.builtin.include_tasks", "ansible.builtin.include_role", "ansible.builtin.import_role")
ACTIONS: dict[str, Callable[..., Result]] = {
    "ansible.builtin.set_fact": _set_fact, "ansible.builtin.assert": _assert, "ansible.builtin.fail": _fail,
    "ansible.builtin.debug": _debug, **dict.fromkeys(INCLUDES, _fail),
}
