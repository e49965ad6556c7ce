# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong in a run, when, and how often it did."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

if TYPE_CHECKING:
    from model.world import Model

__all__ = ["STRUCK", "Fault", "Killed", "Under"]

# How often faults of a kind struck: one that comes after the end of its run, or changes nothing, didn't.
STRUCK: Counter[str] = Counter()
_AT_ENGINE_CALLS = ("kill in", "engine in", "interrupt in")
_AT_CALLS = (*_AT_ENGINE_CALLS, "redis", "registry", "slow", "full", "flaky")  # which don't happen at a step's number
# Only what changes something is worth being killed in.
_CHANGES = ("stop", "remove", "compose", "create", "start")


class Killed(BaseException):
    """The run's process has ended in the middle."""


@dataclass(frozen=True)
class Fault:
    """Something that happens in a run, at one of its steps (tasks of hosts) or at one of the calls in them.

    =================  ==============================================================================================
    kind               at step ``at``
    =================  ==============================================================================================
    cut, mend          the host's connection breaks, is there again
    engine, revive     the host's engine is killed, is there again
    pruned             the host loses the images that no container uses
    deaf               the host's workers don't reach Redis for ``more`` seconds
    kill               the run is killed
    empty              Redis loses everything
    other              another run comes between
    =================  ==============================================================================================

    =================  ==============================================================================================
    kind               at call ``at``
    =================  ==============================================================================================
    kill in            of an engine: the run is killed, in a module
    interrupt in       of an engine: the run is interrupted; a rollout ends at its next safe point
    engine in          of an engine: the host's is killed
    registry           of a registry: it gives none of ``more`` images
    slow               of a registry: this and all later images take ``more`` seconds each
    redis              of Redis: it is away for ``more`` calls
    full               for a file on the host: no space for ``more`` of them
    flaky              at the ``more``-th task of that name the host can't be reached
    =================  ==============================================================================================

    :param host: empty for whichever comes first, for ``deaf`` all.
    :param task: name of a task that it happens at instead of a step's number.
    """

    kind: str
    at: int
    host: str = ""
    more: int = 1
    task: str = ""


@dataclass
class Under:
    """A run under way, with its faults.

    :param others: what happens at the faults of kind ``other``, one after the other.
    :param begun: the number of the last deploy before this run.
    """

    model: Model
    faults: list[Fault]
    others: list[Callable[[], None]]
    begun: int
    interrupted: bool = False
    _calls: Counter[str] = field(default_factory=Counter)
    _met: Counter[Fault] = field(default_factory=Counter)

    def step(self, number: int, host: str, task: str) -> None:
        """A task of a host begins.

        :raises Killed: the run ends here.
        """
        for fault in [one for one in self.faults if one.kind not in _AT_CALLS]:
            if fault.task == task if fault.task else fault.at <= number:
                self.faults.remove(fault)
                if self._strikes(fault):
                    STRUCK[fault.kind] += 1
                self._end_if(fault.kind == "kill")
        for fault in [one for one in self.faults if one.kind == "flaky" and one.host == host]:
            self._flake(fault, task)

    def engine_call(self, host: str, what: str) -> None:
        """An engine is asked for something.

        :raises Killed: the run ends here.
        :raises DriftguardError: it may go on no more, or the registry is away.
        """
        self._calls["engine"] += 1
        if what == "pull":
            self._pull(host)
        if what.split(" ", maxsplit=1)[0] not in _CHANGES:
            return
        self.go_on()
        for fault in [one for one in self.faults if one.kind in _AT_ENGINE_CALLS]:
            if fault.at <= self._calls["engine"] and fault.host in ("", host):
                self.faults.remove(fault)
                STRUCK[fault.kind] += 1
                self._end_if(fault.kind == "kill in")
                if fault.kind == "engine in":
                    self.model.engines[host].kill()
                else:
                    self.interrupted = True
                    self.go_on()

    def _pull(self, host: str) -> None:
        self._calls["pull"] += 1
        slow = [one.more for one in self.faults if one.kind == "slow" and one.at <= self._calls["pull"]]
        if slow:
            STRUCK["slow"] += 1
            self.model.clock.move(max(slow))
        if self._is_in("registry", host):
            raise DriftguardError("registry.test", "the image", "connection refused", "start the registry")

    def go_on(self) -> None:
        """A safe point of a rollout.

        :raises DriftguardError: the run was interrupted.
        """
        if self.interrupted:
            raise DriftguardError(
                "rollout", "a deploy that goes on", "that it was interrupted; stopped at a safe point", "run it again")

    def redis_call(self) -> None:
        """Redis is asked for something.

        :raises DriftguardError: it is away.
        """
        if self._is_in("redis", ""):
            raise DriftguardError("Redis", "an answer", "connection refused", "start it")

    def file(self, host: str) -> None:
        """A file is written on a host.

        :raises OSError: its disk is full.
        """
        if self._is_in("full", host):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _is_in(self, kind: str, host: str) -> bool:
        """Whether a fault strikes this call, counted for each kind and host; it is the next one."""
        self._calls[f"{kind} {host}"] += 1
        number = self._calls[f"{kind} {host}"]
        hit = [
            one for one in self.faults
            if one.kind == kind and one.host in ("", host) and one.at <= number < one.at + one.more]
        for fault in hit:
            STRUCK[kind] += not self._met[fault]
            self._met[fault] += 1
        return bool(hit)

    def _strikes(self, fault: Fault) -> bool:
        """Let a fault strike; whether that changes anything."""
        if fault.kind == "deaf":
            return self.model.silence(fault.host, fault.more)
        if fault.kind == "empty":
            # What befalls Redis when the run has asked it for the last time is no business of the run's.
            over = self.model.lease.given_back_since(self.begun)
            if not over:
                self.model.empty_redis()
            return not over
        if fault.kind == "other" and self.others:
            self.others.pop(0)()
        elif fault.kind != "kill":
            return fault.host in self.model.placement and self._strikes_host(fault.kind, fault.host)
        return True

    def _strikes_host(self, kind: str, host: str) -> bool:
        cut, engine = self.model.cut, self.model.engines[host]
        if kind == "pruned":
            return engine.prune()
        if kind in ("cut", "mend"):
            changes = (host in cut) == (kind == "mend")
            cut.symmetric_difference_update({host} if changes else ())
            return changes
        changes = engine.dead == (kind == "revive")
        if changes:
            (engine.revive if engine.dead else engine.kill)()
        return changes

    def _flake(self, fault: Fault, task: str) -> None:
        self._met[fault] += fault.task == task
        if fault.task == task and self._met[fault] == fault.more:
            STRUCK[fault.kind] += 1
            self.model.cut.add(fault.host)
        elif self._met[fault] == fault.more:
            self.model.cut.discard(fault.host)
            self.faults.remove(fault)

    @staticmethod
    def _end_if(killed: bool) -> None:
        if killed:
            raise Killed
