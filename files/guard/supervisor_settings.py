# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""A supervisor's variables, the same as those of the reference worker; everything that is wrong is named at once."""

from __future__ import annotations

import ipaddress
import os
import re

import version_guard as guard
from supervisor_health import PORT
from supervisor_registration import UNKNOWN
from supervisor_resp import Endpoint
from supervisor_url import Wrong, endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, List, Mapping, TypeVar

    Value = TypeVar("Value")

EXIT_SETTINGS = 2
DRAIN_SECONDS, LONGEST_DRAIN = 20, 86400
_FLEET = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]\Z")
_SERVICE = re.compile(r"[a-z](?:[a-z0-9-]{0,39}[a-z0-9])?\Z")
_VISIBLE = re.compile(r"[!-~]{1,253}\Z")
_PRINTABLE = re.compile(r"[ -~]{1,253}\Z")


class Settings:
    """What a supervisor is told by its environment; an empty variable counts as unset.

    :raises SystemExit: status 2, after everything that is wrong was said.
    """

    def __init__(self, environment: Mapping[bytes, bytes]) -> None:
        self._variables = {os.fsdecode(name): os.fsdecode(environment[name]) for name in environment}
        self._wrong: List[Wrong] = []
        self.service = self._like("WORKER_TYPE", _SERVICE, "the service's name: a-z, 0-9, dashes, at most 41")
        self.fleet = self._like("WORKER_FLEET", _FLEET, "the fleet's name: a-z, 0-9, dashes, 2 to 32")
        self.host = self._like("WORKER_HOST", _VISIBLE, "the host's inventory name without spaces", "")
        self.sha = self._like("GIT_SHA", _PRINTABLE, "the commit that the image was built from", UNKNOWN)
        self.build_date = self._like("BUILD_DATE", _PRINTABLE, "the time of the build", UNKNOWN)
        self.drain = self._number("WORKER_DRAIN_SECONDS", LONGEST_DRAIN, DRAIN_SECONDS)
        self.health_port = self._number("HEALTH_PORT", 65535, PORT)
        self.health_host = self._tried("", self._address)
        redis = [self._variables.get(name, "") for name in ("REDIS_URL", "REDIS_PASSWORD_FILE", "REDIS_CA_FILE")]
        self.redis = self._tried(Endpoint("", 0, "", 0, "", "", None), lambda: endpoint(*redis))
        self.production = "production" in (self._variables.get("WORKER_ENV"), self._variables.get("NODE_ENV"))
        if self._wrong:
            for problem in self._wrong:
                guard.say(
                    2, "FATAL: " + problem.variable + " can't be used!",
                    "  Expected: " + problem.expected, "  Found:    " + guard.shown(problem.found),
                    "  Remedy:   " + problem.remedy)
            raise SystemExit(EXIT_SETTINGS)

    def _tried(self, default: Value, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except Wrong as problem:
            self._wrong.append(problem)
            return default

    def _like(self, name: str, form: re.Pattern[str], expected: str, default: str | None = None) -> str:
        value = self._variables.get(name, "")
        if value and form.match(value):
            return value
        if value or default is None:
            found = "'" + value + "'" if value else "nothing (unset or empty)"
            self._wrong.append(Wrong(name, expected, found, "correct it; the deployment sets it"))
        return default or ""

    def _number(self, name: str, most: int, default: int) -> int:
        value = self._variables.get(name, "")
        if not value:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= most):
            self._wrong.append(Wrong(
                name, "a whole number from 0 to " + str(most), value, "leave it out to use " + str(default)))
            return default
        return int(value)

    def _address(self) -> str:
        value = self._variables.get("HEALTH_HOST", "")
        try:
            return str(ipaddress.ip_address(value)) if value else ""
        except ValueError:
            raise Wrong(
                "HEALTH_HOST", "an IP address to listen on", value,
                "leave it out, or set 0.0.0.0 or 127.0.0.1") from None
