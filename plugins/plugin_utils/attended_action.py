# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module that rolls out beside its connection: shows its progress, keeps its lease, ends it with the deploy."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, Optional

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible_collections.driftguard.workers.plugins.module_utils.attendance import (
    ATTENDED_SPEC,
    LEAST_HEARTBEAT,
    PRIVATE,
)
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.names import FLEET_PATTERN, HOST_ROOT
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_progress import (
    HEALTHY,
    VERIFIED,
    Step,
    shown,
)
from ansible_collections.driftguard.workers.plugins.module_utils.untrusted import clean

from .attended_lease import Lease
from .attended_rollout import AttendedRollout, RolloutLost, run_directory
from .interrupts import Interrupted, interruptible

Values = Dict[str, Any]

LONGEST_SECONDS = 86400
MAX_WARNING = 1000
RESULT_SECONDS = 30.0
# An option of Ansible's SSH connection.
RETRIES = "reconnection_retries"
# The playbook's process imports this before it forks one for the task, which has no terminal of its own.
ON_TERMINAL = sys.stdout.isatty() and sys.stderr.isatty()
# What async_wrapper and async_status add.
FOREIGN = ("ansible_job_id", "started", "finished", "results_file", "stdout", "stdout_lines", "stderr", "stderr_lines")


@dataclass(frozen=True)
class Call:
    """A call of a module that is to be attended.

    :param module: its full name.
    :param rollout: the options of the rollout: those of worker_rollout, without what the controller alone needs.
    :param options: what the controller needs of them, checked: see :data:`.attendance.ATTENDED_SPEC`.
    :param arguments: makes the module's arguments for a run's directory.
    :param private: makes more of them, which the module reads from a file of that directory and removes. What is
        started behind a connection lies on the host's disk with its arguments, secrets and all, while it works.
    :param untouched: what is returned besides the failure of a call that was never started.
    """

    module: str
    rollout: Values
    options: Values
    arguments: Callable[[str], Values]
    private: Optional[Callable[[str], Values]] = None
    untouched: Values = field(default_factory=dict)


def attended_options(rollout: Values) -> Values:
    """What the controller needs of a rollout's options, checked; the lease is taken out, the module never has it.

    :raises AnsibleActionFail: they aren't in their form.
    """
    own = {name: rollout[name] for name in ATTENDED_SPEC if rollout.get(name) is not None}
    found = ArgumentSpecValidator(ATTENDED_SPEC).validate(own)  # type: ignore[no-untyped-call]
    if found.error_messages:
        raise AnsibleActionFail("; ".join(found.error_messages))  # type: ignore[no-untyped-call]
    rollout.pop("lease", None)
    return dict(found.validated_parameters)


class AttendedAction(ActionBase):
    """An action whose module may be, or have in it, a rollout."""

    _supports_check_mode = True
    _supports_async = True
    _is_starting = False

    def attend(self, call: Call, task_vars: Values) -> Optional[Values]:
        """Run the module beside its connection; None where there is nothing to attend, or something is wrong with it.

        :raises AnsibleConnectionFailure: the host can't be reached, and the rollout has stopped by now.
        """
        self._vars = task_vars
        self._parent = os.getppid()
        self._call = call
        self._private: Values = {}
        directory = run_directory({"root": HOST_ROOT, **call.rollout}, secrets.token_hex(8))
        if directory is None or not self._is_attended(call.rollout, call.options):
            return None
        self._directory = directory
        self._lease = Lease(self.execute, self.warn, call.rollout, call.options)
        self._rollout = AttendedRollout(
            directory, call.options["heartbeat"], self._command, self._shower(call), self._keep)
        return self._attended()

    def get_shell_option(self, option: str, default: Any = None) -> Any:
        """As Ansible's own; the job file lies with the run's other files, so that one look sees all of them."""
        if option == "async_dir" and self._is_starting:
            return self._directory
        return super().get_shell_option(option, default)  # type: ignore[no-untyped-call]

    def execute(self, module: str, arguments: Values) -> Values:
        """Run a module on the host; its result."""
        return dict(self._execute_module(module, arguments, task_vars=self._vars))

    def warn(self, text: str) -> None:
        """Tell a person, who need not do anything yet."""
        # Ansible keeps a task's own warnings back until the task has ended.
        line = f"[WARNING]: {self._call.rollout.get('host', '')}: {clean(text, MAX_WARNING)}"
        self._display.display(line, color=constants.COLOR_WARN, stderr=True)  # type: ignore[attr-defined]

    def _is_attended(self, arguments: Values, options: Values) -> bool:
        # Whatever is wrong with an option, the module says it best.
        return (
            not self._task.check_mode
            and not self._task.async_val
            and arguments.get("state") not in ("settled", "kept")  # neither touches a container
            and FLEET_PATTERN.match(str(arguments.get("fleet", ""))) is not None
            and LEAST_HEARTBEAT <= options["heartbeat"] <= LONGEST_SECONDS
        )

    def _attended(self) -> Optional[Values]:
        with interruptible():
            try:
                refusal = self._refusal()
                if refusal is not None:
                    return {"changed": False, **self._call.untouched, **refusal}
                started = self._start({**self._call.arguments(self._directory), **self._private})
                if "ansible_job_id" not in started:
                    self._rollout.remove()
                    # Such as no directory for the job file; the module finds the same and has the better words.
                    return None
                result = self._result(self._rollout.await_end())
                self._rollout.remove()
            except DriftguardError as error:
                result = {"failed": True, **error.as_result()}
            except RolloutLost as error:
                raise AnsibleConnectionFailure(
                    "the host stopped answering in the middle of its rollout, which has stopped at a safe point by now"
                ) from error
            except BaseException:
                # Interrupted, or out of the task's time: nothing may go on behind anybody's back.
                self._rollout.stop()
                raise
        if result.get("failed"):
            # Whoever was suspended for so long that the rollout gave up is told who went on meanwhile.
            self._lease.keep()
        return {**result, **self._lease.refusal}

    def _refusal(self) -> Optional[Values]:
        """Why the call isn't even started, as a result; None where it is."""
        if not self._lease.keep():
            return self._lease.refusal
        try:
            self._private = self._hand_over()
        except AnsibleConnectionFailure as error:
            # Whoever wonders what was done there is told that it is nothing: see Call.untouched.
            return {"unreachable": True, "msg": str(error)}
        except DriftguardError as error:
            self._rollout.remove()
            return {"failed": True, **error.as_result()}
        return None

    def _hand_over(self) -> Values:
        """Leave the private arguments in the run's directory; those that can't be, with this kind of connection."""
        private = self._call.private(self._directory) if self._call.private else {}
        if not private or not self._connection.has_pipelining:
            return private
        place = shlex.quote(self._directory)
        command = f"mkdir -p -m 700 {place} && umask 077 && cat > {place}/{PRIVATE}"
        done = self._low_level_execute_command(  # type: ignore[no-untyped-call]
            command, in_data=json.dumps(private).encode("utf-8"))
        if done["rc"]:
            raise DriftguardError(
                f"{self._directory}/{PRIVATE}", "to be written", str(done["stderr"] or done["stdout"]).strip()[-300:],
                "mend the directory's permissions or the disk of this host, then run again")
        return {}

    def _start(self, arguments: Values) -> Values:
        self._is_starting, self._task.async_val = True, LONGEST_SECONDS
        try:
            with self._tried_once():
                return dict(self._execute_module(self._call.module, arguments, task_vars=self._vars, wrap_async=True))
        except AnsibleConnectionFailure:
            self._rollout.stop_for_certain()
            raise
        finally:
            self._is_starting, self._task.async_val = False, 0

    @contextmanager
    def _tried_once(self) -> Iterator[None]:
        """Let the connection not repeat what breaks: a start that came through would be a second one."""
        try:
            before = self._connection.get_option(RETRIES)  # type: ignore[no-untyped-call]
        except (KeyError, AttributeError):  # not SSH
            yield
            return
        self._connection.set_option(RETRIES, 0)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self._connection.set_option(RETRIES, before)  # type: ignore[no-untyped-call]

    def _result(self, job: str) -> Values:
        deadline = time.monotonic() + RESULT_SECONDS
        while True:
            try:
                result = self.execute("ansible.legacy.async_status", {"jid": job, "_async_dir": self._directory})
                return {name: value for name, value in result.items() if name not in FOREIGN}
            except AnsibleConnectionFailure:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def _command(self, command: str) -> str:
        return str(self._low_level_execute_command(command)["stdout"])  # type: ignore[no-untyped-call]

    def _keep(self) -> bool:
        if os.getppid() != self._parent:
            # The playbook was killed, and this process of one of its tasks with nobody to tell it so.
            raise Interrupted(signal.SIGTERM)
        return self._lease.keep()

    def _shower(self, call: Call) -> Callable[[Step], None]:
        host, wanted = str(call.rollout.get("host", "")), call.options["progress"]
        width = max((len(str(name)) for name in self._vars.get("ansible_play_hosts_all", ())), default=0)

        def show(step: Step) -> None:
            if wanted == "always" or (wanted == "auto" and ON_TERMINAL):
                name = "COLOR_OK" if step.event in (HEALTHY, VERIFIED) else "COLOR_CHANGED"
                colour = getattr(constants, name) if ON_TERMINAL else None
                self._display.display(shown(host, step, width), color=colour, stderr=True)

        return show
