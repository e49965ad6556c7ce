# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""What a supervisor says of itself: its lines in the log, /health and /metrics."""

from __future__ import annotations

import json
import time

import supervisor_fence as fence
import version_guard as guard
from supervisor_health import JSON, TEXT, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional

    from supervisor_child import Family
    from supervisor_health import Answer
    from supervisor_link import Link
    from supervisor_log import Log
    from supervisor_registration import Identity

STATES = ("starting", "running", "draining", "fenced")
PROBLEMS = (
    "host record missing", "host record unreadable", "fleet record missing", "fleet record unreadable",
    "fleet record unreachable")
_PREFIX = "driftguard_worker_"
_NO_IMAGE = "no readable image file"


class Report:
    """Says each thing once, when it begins and when it is over.

    :param started: time.monotonic() at the start of the process.
    """

    def __init__(self, log: Log, identity: Identity, link: Link, family: Family, started: float) -> None:
        self.state = STATES[0]
        self._log, self._is, self._link, self._family, self._started = log, identity, link, family, started
        self._then, self._fault = "", ""
        self._problems: List[str] = []

    def listen(self, host: str, port: int) -> None:
        """Serve /health and /metrics; an address that can't be had is said, and no reason to end."""
        host = host or ("0.0.0.0" if self._is.container else "127.0.0.1")
        try:
            server = Server(host, port, {"/health": self._health, "/metrics": self._metrics})
        except OSError as error:
            self._log.warn(
                "WARNING: no /health and /metrics on " + host + ":" + str(port) + ": "
                + guard.shown(error.strerror or str(error)) + "; set HEALTH_PORT to a free port")
            return
        server.start()
        self._log.say("Health: " + host + ":" + str(server.port))

    def say_start(self, where: str, adopts: bool) -> None:
        """Where it registers, and what it can't promise here."""
        self._log.say("Supervising as " + guard.shown(self._is.worker) + ", Redis " + guard.shown(where))
        if not adopts:
            self._log.warn("WARNING: this Python has no prctl: a process that leaves the worker's session may go on"
                           " when the worker is fenced, and the worker when this process is killed")

    def decided(self, then: str, problems: List[str], host: str, fleet: str, own: Optional[str]) -> None:
        """Another decision, or other problems with the records."""
        if then != self._then:
            self._decision(then, host, fleet, own)
        for problem in problems:
            if problem not in self._problems:
                self._log.warn("WARNING: " + problem)
        for problem in self._problems:
            if problem not in problems:
                self._log.say("no longer: " + problem)
        self._then, self._problems = then, problems

    def _decision(self, then: str, host: str, fleet: str, own: Optional[str]) -> None:
        if then == fence.PARK:
            self._log.warn(
                "FENCED: this release may not run any more!",
                "  Expected: a release that the host's and the fleet's records allow",
                "  Found:    " + (own or _NO_IMAGE) + ": host record " + host + ", fleet record " + fleet,
                "  Remedy:   deploy again, or roll back to this release: the worker then goes on by itself")
        elif then == fence.WAIT:
            self._log.say("Waiting for the fleet's record before the first start")
        elif then == fence.RUN and self._then != fence.HOLD:
            self._log.say("Admitted: " + (own or _NO_IMAGE))

    def ending(self, drain: float) -> None:
        """The child is asked to end."""
        self._log.say("Ending the worker: SIGTERM now, SIGKILL for what is left after " + str(drain) + " s")

    def fault(self, where: str, fault: str) -> None:
        """Redis can't be asked, or can again."""
        if fault and fault != self._fault:
            self._log.warn("WARNING: Redis at " + guard.shown(where) + ": " + guard.shown(fault))
        elif self._fault and not fault:
            self._log.say("Redis at " + guard.shown(where) + " answers again")
        self._fault = fault

    def refused(self, where: str, fault: str) -> None:
        """Redis refuses this user before the first admission."""
        self._log.warn(
            "FATAL: Redis refuses this worker!",
            "  Expected: " + guard.shown(where) + " to accept the registration and to show the release record",
            "  Found:    " + guard.shown(fault),
            "  Remedy:   correct the user in REDIS_URL, the password in REDIS_PASSWORD_FILE, or the user's rules")

    def without_messages(self, why: str) -> None:
        """No Pub/Sub."""
        self._log.say("NOTE: no messages on " + self._is.fleet + ":release:events (" + guard.shown(why)
                      + "): a change is seen at the next heartbeat")

    def not_started(self, error: OSError) -> None:
        """The child couldn't be started."""
        self._log.warn("FATAL: The worker can't be started!",
                       "  Expected: the system to start a process",
                       "  Found:    " + guard.shown(error.strerror or str(error)),
                       "  Remedy:   raise the service's limits of memory or pids")

    def not_withdrawn(self) -> None:
        """The registration is still there."""
        self._log.warn("WARNING: not deregistered, the registration expires by itself")

    def ended(self, status: int) -> None:
        """The last line."""
        self._log.say("Supervisor ends with status " + str(status))

    def _healthy(self) -> bool:
        return self.state == "running" and self._link.alive and self._then in (fence.RUN, fence.HOLD)

    def _health(self) -> Answer:
        healthy, age = self._healthy(), self._link.age
        body = {
            "status": "ok" if healthy else "unavailable",
            "workerId": self._is.worker,
            "state": self.state,
            "version": {"sha": self._is.sha, "release": self._is.release, "buildDate": self._is.build_date},
            "uptime": round(self._uptime(), 3),
            "redis": {"connected": self._link.connected, "heartbeatAge": None if age is None else round(age, 3)},
            "fence": {"decision": self._then, "problems": self._problems},
        }
        return (200 if healthy else 503), JSON, json.dumps(body) + "\n"

    def _metrics(self) -> Answer:
        build = {
            "worker": self._is.worker, "service": self._is.service, "sha": self._is.sha, "release": self._is.release,
            "build_date": self._is.build_date}
        labels = ",".join(name + '="' + _escaped(value) + '"' for name, value in build.items())
        lines = [
            *_metric("build_info", "gauge", "What runs here", ["{" + labels + "} 1"]),
            *_metric("uptime_seconds", "gauge", "Seconds since the start", [" " + str(round(self._uptime(), 3))]),
            *_metric("state", "gauge", "State of the worker", [
                '{driftguard_worker_state="' + state + '"} ' + str(int(state == self.state)) for state in STATES]),
            *_metric("heartbeats_total", "counter", "Heartbeats that Redis confirmed", [" " + str(self._link.beats)]),
            *_metric("redis_errors_total", "counter", "Times that Redis couldn't be asked", [
                " " + str(self._link.faults)]),
            *_metric("child_restarts_total", "counter", "Starts of the command after the first", [
                " " + str(max(0, self._family.starts - 1))]),
            *_metric("fence_problem", "gauge", "Whether a record can't be used", [
                '{problem="' + problem + '"} ' + str(int(problem in self._problems)) for problem in PROBLEMS]),
        ]
        return 200, TEXT, "\n".join(lines) + "\n"

    def _uptime(self) -> float:
        return time.monotonic() - self._started


def _metric(name: str, kind: str, meaning: str, values: List[str]) -> List[str]:
    bare = _PREFIX + (name[:-len("_total")] if name.endswith("_total") else name)
    head = ["# HELP " + bare + " " + meaning, "# TYPE " + bare + " " + kind]
    return [*head, *(_PREFIX + name + value for value in values)]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
