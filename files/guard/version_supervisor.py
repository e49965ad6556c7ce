# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The supervisor: a command's parent that registers it, and stops it when its release is no longer allowed.

version_guard.py --supervise loads it, after its checks. One thread decides and holds the child; others talk to Redis,
answer on HTTP and write the log, so that nothing slow holds up a signal or the fence. docs/guards.md has the promises.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import threading
import time
from contextlib import suppress

import supervisor_fence as fence
import version_guard as guard
from supervisor_child import Family
from supervisor_link import Link, Listener, News
from supervisor_log import Log
from supervisor_registration import UNKNOWN, Identity
from supervisor_report import Report
from supervisor_settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Mapping, Optional, Sequence

EXIT_INTERNAL, EXIT_NOT_DEREGISTERED, EXIT_REFUSED = 70, 75, 77
LEAVE_SECONDS = 5.0
KILL_SECONDS = 0.1  # between two looks at what SIGKILL has left
FLUSH_SECONDS = 1.0
_PIPE_BYTES = 4096
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
FORWARDED = (
    *STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP,
    signal.SIGTTIN, signal.SIGTTOU, signal.SIGALRM, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1))


def supervise(
    command: Sequence[bytes], environment: Mapping[bytes, bytes], image_file: str, directory: Optional[str]
) -> int:
    """Supervise a command until it ends, or until a signal asks to stop; the process's exit status.

    :param directory: of the host record; None where none is mounted.
    :raises SystemExit: with status 2, when a variable is missing or wrong.
    """
    sys.excepthook = _on_mistake
    threading.excepthook = lambda found: _on_mistake(found.exc_type, found.exc_value, found.exc_traceback)
    supervisor = Supervisor(Settings(environment), Family(command, environment), image_file, directory)
    status = supervisor.run()
    os._exit(status)  # threads that wait for a server must not hold up the end


def _on_mistake(kind: Any, value: Any, trace: Any) -> None:
    """End with status 70: without one of its threads a supervisor would be blind, and the child ends with it."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = os.path.basename(trace.tb_frame.f_code.co_filename) + ":" + str(trace.tb_lineno) if trace else "?"
    guard.say(
        2, "FATAL: The supervisor has a mistake!",
        "  Expected: it to go on",
        "  Found:    " + kind.__name__ + " at " + where + ": " + guard.shown(str(value)),
        "  Remedy:   report these lines")
    os._exit(EXIT_INTERNAL)


class Supervisor:
    """Decides what the child does. All of it happens in the main thread, one step after another."""

    def __init__(self, settings: Settings, family: Family, image_file: str, directory: Optional[str]) -> None:
        self._started = time.monotonic()
        own = fence.own_release(image_file)
        self._identity = Identity(
            settings.fleet, settings.service, settings.host, settings.sha, settings.build_date,
            own.partition(":")[0] if own else UNKNOWN)
        self._own = own
        self._family = family
        self._drain = settings.drain
        self._enforced = settings.production or directory is not None
        self._host = fence.HostRecord(directory, own)
        self._fleet, self._heard = fence.UNREACHABLE, False
        self._before, self._then = fence.STARTING, fence.WAIT
        self._ending: Optional[float] = None  # when what still runs is killed
        self._stop = 0
        self._status: Optional[int] = None
        self._signals: List[int] = []
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._read, self._write = os.pipe()
        self._log = Log()
        self._link = Link(settings.redis, self._identity, self._state, self._tell, self._started)
        self._listener = Listener(settings.redis, self._identity, self._link.ask, self._without_messages)
        self._report = Report(self._log, self._identity, self._link, family, self._started)
        self._report.listen(settings.health_host, settings.health_port)
        self._where = settings.redis.where

    def run(self) -> int:
        """Run to the end; the exit status."""
        self._catch_signals()
        for thread in (self._log, self._link, self._listener):
            thread.start()
        self._report.say_start(self._where, self._family.adopts)
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        self._step()
        while self._status is None:
            poll.poll(self._pause() * 1000)
            self._drain_pipe()
            self._step()
        return self._leave(self._status)

    def _catch_signals(self) -> None:
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._on_signal)
        for number in FORWARDED:
            # One that was ignored from the beginning stays ignored, for the child too.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: Any) -> None:
        self._signals.append(number)

    def _tell(self, news: News) -> None:
        self._news.put(news)
        with suppress(BlockingIOError):  # it is full, so it wakes
            os.write(self._write, b"\0")

    def _drain_pipe(self) -> None:
        with suppress(BlockingIOError):
            while len(os.read(self._read, _PIPE_BYTES)) == _PIPE_BYTES:
                pass

    def _pause(self) -> float:
        """Seconds until something has to be looked at that doesn't announce itself."""
        if self._ending is None:
            return fence.LOOK_SECONDS
        left = self._ending - time.monotonic()
        return KILL_SECONDS if left <= 0 else min(fence.LOOK_SECONDS, left)

    def _step(self) -> None:
        """Take in what has happened, decide, and bring the child to it."""
        state = self._state()
        ended = self._family.reap()
        self._pass_signals()
        self._hear()
        self._host.look()
        self._decide()
        if self._status is None:
            self._bring(ended)
        if self._state() != state:
            self._link.ask()
        self._report.state = self._state()

    def _pass_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGCHLD:
                continue
            # A worker that is being fenced has had its SIGTERM; a second one means "at once" to many.
            told = number == signal.SIGTERM and self._ending is not None and not self._stop
            if number in STOPS:
                self._stop = self._stop or number
            if not told:
                self._family.send(number)

    def _hear(self) -> None:
        while not self._news.empty():
            news, self._heard = self._news.get(), True
            if news.refused:
                self._report.refused(self._where, news.fault)
                self._status = EXIT_REFUSED
            self._fleet = (
                fence.UNREACHABLE if news.fault
                else fence.judge_fleet(news.record, self._identity.fleet, self._own))
            self._report.fault(self._where, news.fault)

    def _decide(self) -> None:
        then, problems = fence.decide(self._before, self._host.verdict, self._fleet)
        if not self._enforced and then != fence.RUN:
            problems, then = [*problems, "not enforced: " + then], fence.RUN
        if not self._heard:
            problems = [problem for problem in problems if not problem.endswith(fence.UNREACHABLE)]
        self._report.decided(then, problems, self._host.verdict, self._fleet, self._own)
        self._before, self._then = fence.after(then, self._before), then

    def _bring(self, ended: bool) -> None:
        family, wanted = self._family, self._then in (fence.RUN, fence.HOLD)
        if self._stop:
            self._end_of_stop(wanted, ended)
        elif ended and wanted and self._ending is None:
            family.end()  # as the end of its container would
            self._status = family.status
        elif not family.alive:
            self._ending = family.status = None
            if wanted:
                self._start()
        elif not wanted or self._ending is not None:
            self._end(ended)

    def _end_of_stop(self, wanted: bool, ended: bool) -> None:
        """The command has been told; what it leaves behind is told when it has ended."""
        if not self._family.alive:
            self._status = self._family.status or 0
        elif ended or not wanted or self._ending is not None:
            self._end(ended)

    def _end(self, ended: bool) -> None:
        """Terminate what runs, and kill what is left of it when its time is over."""
        told = ended or (self._ending is None and not self._stop)
        if self._ending is None:
            self._ending = time.monotonic() + self._drain
            self._report.ending(self._drain)
        if time.monotonic() >= self._ending:
            self._family.kill()
        elif told:
            self._family.terminate()

    def _start(self) -> None:
        try:
            self._family.start()
        except OSError as error:
            self._report.not_started(error)
            self._status = guard.EXIT_NOT_EXECUTABLE

    def _state(self) -> str:
        """What the registration says."""
        if self._stop or (self._family.alive and self._ending is not None):
            return "draining"
        if self._family.alive:
            return "running"
        return "fenced" if self._then == fence.PARK else "starting"

    def _without_messages(self, why: str) -> None:
        self._report.without_messages(why)

    def _leave(self, status: int) -> int:
        """Take the registration back, for at most LEAVE_SECONDS or until a signal asks again."""
        self._signals.clear()
        self._link.leave()
        end = time.monotonic() + LEAVE_SECONDS
        while self._link.is_alive() and time.monotonic() < end and not set(STOPS).intersection(self._signals):
            self._link.join(0.02)
        if self._link.registered.is_set() and not self._link.withdrawn:
            self._report.not_withdrawn()
            status = status or EXIT_NOT_DEREGISTERED
        self._report.ended(status)
        self._log.flush(FLUSH_SECONDS)
        return status
