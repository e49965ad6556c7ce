# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules run in the task's own process, if that is on the host, and as the user, that they were meant for.

A module that goes the usual way is packed, and a Python of its own is started, which compiles all of it. The result is
the same either way, as far as the module's documentation goes: Ansible's own additions to whatever returns a ``path``
(owner, size …) are missing, and the system's log has no line of it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from datetime import date
from types import SimpleNamespace
from typing import Any, Dict, Iterator, Mapping, Optional

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.arg_spec import ModuleArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.common.warnings import get_deprecation_messages, get_warning_messages, warn
from ansible.module_utils.errors import UnsupportedError
from ansible.plugins.action.normal import ActionModule as UsualAction
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import Result, Work, return_values

Values = Dict[str, Any]


class InProcessAction(UsualAction):
    """Runs :attr:`work` in this process where it can, else as any module.

    The work needs nothing of a host, nor any library: its Python is Ansible's own here, whatever
    ``ansible_python_interpreter`` says.
    """

    work: Work

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Values] = None) -> Values:
        """The module's result."""
        is_here = self._is_here()
        arguments = self._arguments() if is_here else None
        if arguments is None:
            return self.elsewhere(tmp, task_vars or {}) if not is_here else self._usual(tmp, task_vars)
        self._display.vvv(f"{self._task.action} runs in this process")
        with directory(self._loader.get_basedir()):
            return run_here(
                self.work, arguments, name=self._task.action, check_mode=self._task.check_mode, is_diff=self._task.diff)

    def elsewhere(self, tmp: Optional[str], task_vars: Values) -> Values:
        """On another host, or as another user: as any module."""
        return self._usual(tmp, task_vars)

    def _usual(self, tmp: Optional[str], task_vars: Optional[Values]) -> Values:
        return dict(super().run(tmp, task_vars))  # type: ignore[no-untyped-call]

    def _arguments(self) -> Optional[Values]:
        try:
            return dict(plain(self._task.args))
        except NotPlain as error:
            # Ansible's own encoders know more types, or say why not.
            self._display.vvv(f"{self._task.action} gets a process of its own: {error}")
            return None

    def _is_here(self) -> bool:
        """Whether a process of the module's own would be this one's child and equal: same machine, user, environment.

        Becoming another user goes through sudo or its like, which may refuse or change the environment. One process
        runs all rounds of a loop, and what names a file after its process would write the same file again.
        """
        return (
            self._connection.transport == "local"
            and not self._becomes_another()
            and not self._task.async_val
            and not self._task.loop
            and not self._has_environment()
            and is_directory(self._loader.get_basedir())
        )

    def _becomes_another(self) -> bool:
        """Whether Ansible would go through sudo or its like: by its own rule, as of 2.19."""
        if self._connection.become is None:
            return False
        wanted = self.get_become_option("become_user")  # type: ignore[no-untyped-call]
        user = self._get_remote_user()  # type: ignore[no-untyped-call]
        return bool(constants.BECOME_ALLOW_SAME_USER or wanted != user or not wanted)  # type: ignore[attr-defined]

    def _has_environment(self) -> bool:
        environment: Values = {}
        self._compute_environment_string(environment)  # type: ignore[no-untyped-call]
        return bool(environment)


class HostAction(InProcessAction):
    """For work that needs libraries, which another Python may have: this one does it only if the host's is the same."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Values] = None) -> Values:
        """The module's result."""
        self._interpreter = self._wanted_interpreter(task_vars or {})
        return super().run(tmp, task_vars)

    def _is_here(self) -> bool:
        return self._interpreter == sys.executable and super()._is_here()

    def elsewhere(self, tmp: Optional[str], task_vars: Values) -> Values:
        """On another host. That can't be reached when the task's own may well be, so it is the task that fails then."""
        try:
            return super().elsewhere(tmp, task_vars)
        except AnsibleConnectionFailure as error:
            if not self._task.delegate_to:
                raise
            found = " ".join(str(error).split())
            failure = DriftguardError(
                f"{self._task.delegate_to}, where this is done", "to be reached", found,
                "see to that host or its connection, or have it done elsewhere (worker_redis_host), then run again")
            return {"failed": True, **failure.as_result()}

    def _wanted_interpreter(self, task_vars: Values) -> str:
        other = self._task.delegate_to
        host_vars = task_vars.get("ansible_delegated_vars", {}).get(other, {}) if other else task_vars
        return str(self._templar.template(host_vars.get("ansible_python_interpreter", "")))


class NotPlain(Exception):
    """A value has no form in JSON that is known here; says which."""


def is_directory(path: str) -> bool:
    """Whether one can go there and come back."""
    try:
        return os.access(path, os.X_OK) and os.access(os.getcwd(), os.X_OK)
    except OSError:  # the present one was removed
        return False


@contextmanager
def directory(path: str) -> Iterator[None]:
    """Be in a directory, that of the playbook: where Ansible starts local modules, and their relative paths begin."""
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def run_here(work: Work, arguments: Values, *, name: str, check_mode: bool, is_diff: bool) -> Values:
    """Run a module in this process; its return values are those that AnsibleModule would print.

    :param arguments: the task's, as :func:`plain` data.
    :param name: the module's, for messages.
    :raises KeyboardInterrupt: the playbook is ending, which nobody but Ansible itself tells.
    """
    told, deprecated = len(get_warning_messages()), len(get_deprecation_messages())
    validator = ModuleArgumentSpecValidator(deepcopy(work.arguments), **work.checks)  # type: ignore[no-untyped-call]
    found = validator.validate(arguments)  # type: ignore[no-untyped-call]
    options = found.validated_parameters
    secrets = set(found._no_log_values)
    module = SimpleNamespace(
        params=options, check_mode=check_mode, _diff=is_diff, no_log_values=secrets, warn=warn)
    if found.errors.errors:
        values: Values = {"failed": True, "msg": _message(found.errors, name)}
    else:
        values = return_values(lambda: _plain_result(work.action(module)), is_diff)
    values = plain({"invocation": {"module_args": options}, **values})
    # ansible-core 2.19 shows them by itself as soon as they come up; then there are none here.
    for kind, said in (("warnings", get_warning_messages()[told:]),
                       ("deprecations", get_deprecation_messages()[deprecated:])):
        if said:
            values[kind] = list(said)
    return dict(remove_values(values, secrets))  # type: ignore[no-untyped-call]


def _plain_result(result: Result) -> Result:
    return replace(result, values=plain(result.values))


def _message(errors: Any, name: str) -> str:
    if isinstance(errors[0], UnsupportedError):
        return f"Unsupported parameters for ({name}) module: {errors.msg}"
    return str(errors.msg)


def plain(value: Any) -> Any:
    """The value as a module gets it: as it comes out of JSON, with no tag, no template and no type of Ansible's own.

    :raises NotPlain: it has no such form that is known here.
    """
    try:
        return _plain(value)
    except RecursionError as error:
        raise NotPlain("nested too deeply") from error


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        # str() would ask the type, which may well answer with one of its own.
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if isinstance(value, date):
        return value.isoformat()
    raise NotPlain(f"a {type(value).__name__}")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(_plain(key))
    raise NotPlain(f"a {type(key).__name__} as a key")
