# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules find in one service: how it is run, and what it may do to the host."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Iterator

from .audit_checks import Hit, image_hits, runner_hits, secret_hits, version_hits
from .audit_rules import RULES
from .audit_view import ServiceView
from .code_paths import code_paths, covered_code
from .fleet_volumes import SOCKETS

_HOST_NAMESPACES = ("pid", "ipc", "userns_mode", "uts")
# What covers the sockets that are in it.
_SOCKET_ROOTS = ("/", "/run", "/var", "/var/run")
_ROTATING_DRIVERS = ("local", "none", "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "gcplogs", "loki")
_ALWAYS = ("always", "any", "")


def all_hits(service: ServiceView) -> list[Hit]:
    """Everything that the rules find in a service, without those that are only for workers where it is none."""
    found = [hit for check in _CHECKS for hit in check(service)]
    return [hit for hit in found if service.worker or not RULES[hit.rule].workers_only]


def _limit_hits(service: ServiceView) -> Iterator[Hit]:
    if not service.text("mem_limit") and not service.text("deploy", "resources", "limits", "memory"):
        yield Hit("memory-limit", (), "neither mem_limit nor deploy.resources.limits.memory")


def _run_hits(service: ServiceView) -> Iterator[Hit]:
    if service.text("container_name"):
        yield Hit("container-name", ("container_name",), "container_name is set")
    swarm = service.value("deploy", "restart_policy")
    if isinstance(swarm, dict):
        if service.text("deploy", "restart_policy", "condition") not in _ALWAYS:
            yield Hit("restart-policy", ("deploy", "restart_policy"), "deploy.restart_policy isn't any")
    elif service.text("restart") != "always":
        has = bool(service.text("restart"))
        yield Hit("restart-policy", ("restart",) if has else (), "restart isn't always" if has else "no restart policy")
    if not service.text("stop_grace_period"):
        yield Hit("stop-grace-period", (), "no stop_grace_period")
    yield from _health_hits(service)
    yield from _log_hits(service)
    if service.text("pull_policy") != "never":
        yield Hit("pull-policy", ("pull_policy",) if service.text("pull_policy") else (), "pull_policy isn't never")


def _health_hits(service: ServiceView) -> Iterator[Hit]:
    test = service.listed("healthcheck", "test")
    if service.text("healthcheck", "disable").lower() == "true" or test[:1] == ["NONE"]:
        yield Hit("healthcheck", ("healthcheck",), "the health check is switched off")
    elif not test:
        yield Hit("healthcheck", (), "no health check in the file; the image may have one")


def _log_hits(service: ServiceView) -> Iterator[Hit]:
    driver = service.text("logging", "driver")
    if driver not in _ROTATING_DRIVERS and not service.text("logging", "options", "max-size"):
        yield Hit("log-rotation", ("logging",) if service.value("logging") else (), "no max-size for the log")


def _mount_hits(service: ServiceView) -> Iterator[Hit]:
    words = [*service.words("entrypoint"), *service.words("command")]
    environment = {
        name: service.expanded(value).text for name, value in service.pairs("environment").items() if value}
    paths = code_paths(service.text("working_dir"), words, environment)
    for volume in service.volumes():
        at = ("volumes", volume.target.rstrip("/") or "/")
        if volume.kind == "bind" and _shows_socket(volume.source):
            yield Hit("docker-socket", at, f"{volume.source} is mounted")
        # What is mounted for the engine's sake covers no code.
        elif covered_code(volume.target, paths):
            yield Hit("code-mount", at, f"a {volume.kind} at {volume.target} over {covered_code(volume.target, paths)}")
        if volume.kind == "volume" and not volume.source:
            yield Hit("anonymous-volume", at, f"the volume at {volume.target} has no name")
    for target in service.listed("tmpfs"):
        place = target.partition(":")[0]
        if covered_code(place, paths):
            yield Hit("code-mount", ("tmpfs", place), f"a tmpfs at {place} over {covered_code(place, paths)}")


def _shows_socket(source: str) -> bool:
    path = "/" + str(PurePosixPath(source)).lstrip("/")
    return source.startswith("/") and (path in _SOCKET_ROOTS or PurePosixPath(path).name in SOCKETS)


def _power_hits(service: ServiceView) -> Iterator[Hit]:
    if service.is_true("privileged"):
        yield Hit("privileged", ("privileged",), "privileged is true")
    for key in _HOST_NAMESPACES:
        if service.text(key) == "host":
            yield Hit("host-process-namespace", (key,), f"{key} is host")
    if service.text("network_mode") == "host":
        yield Hit("host-network", ("network_mode",), "network_mode is host")
    if service.text("user").partition(":")[0] in ("root", "0"):
        yield Hit("root-user", ("user",), "user is root")


def _profile_hits(service: ServiceView) -> Iterator[Hit]:
    for name in service.listed("cap_add"):
        yield Hit("cap-add", ("cap_add", name), f"capability {name}")
    for option in service.listed("security_opt"):
        if option.replace("=", ":").endswith(":unconfined"):
            yield Hit("unconfined", ("security_opt", option), f"security_opt {option}")


def _hardening_hits(service: ServiceView) -> Iterator[Hit]:
    missing = [
        name for name, there in (
            ("read_only", service.is_true("read_only")),
            ("cap_drop", "ALL" in service.listed("cap_drop")),
            ("no-new-privileges", any("no-new-privileges" in option for option in service.listed("security_opt"))),
            ("init", service.is_true("init")),
            ("pids limit", bool(service.text("pids_limit") or service.text("deploy", "resources", "limits", "pids"))),
        ) if not there]
    if missing:
        yield Hit("hardening", (), f"missing: {', '.join(missing)}")


_CHECKS = (
    image_hits, version_hits, runner_hits, secret_hits, _limit_hits, _run_hits, _mount_hits, _power_hits,
    _profile_hits, _hardening_hits)
