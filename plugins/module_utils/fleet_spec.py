# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet spec: what an inventory may say of a service, read into one value, every problem named at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional, Sequence

from . import fleet_values as values
from .errors import DriftguardError
from .fleet_rules import SHOWN_PROBLEMS, Problems, check_service, check_volumes
from .fleet_values import Unfit, shown
from .fleet_volumes import Mount, mount, tmpfs_path
from .guard_command import EXEC, MODES
from .names import FLEET_PATTERN, SERVICE_PATTERN, VARIANT_PATTERN
from .rollout_order import ORDERS, STOP_FIRST

# Of secrets, networks and volumes: what both compose and a file system take.
PLAIN_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z")
MAX_REPLICAS = 100
MIN_SECRET_LENGTH = 8


@dataclass(frozen=True)
class Healthcheck:
    """A health check as compose knows it; times in seconds. An empty test means the image's own."""

    test: tuple[str, ...] = ()
    interval: int = 30
    timeout: int = 10
    retries: int = 3
    start_period: int = 30


@dataclass(frozen=True)
class Service:
    """One kind of worker, every default filled in. Sizes in bytes, times in seconds."""

    name: str
    variant: str = "base"
    command: tuple[str, ...] = ()
    replicas: int = 1
    concurrency: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    memory: int = 0
    cpus: Optional[float] = None
    pids: int = 256
    reserved_memory: Optional[int] = None
    reserved_cpus: Optional[float] = None
    healthcheck: Optional[Healthcheck] = Healthcheck()
    stop_grace_period: int = 30
    drain_time: int = 20
    volumes: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ("/tmp",)
    networks: tuple[str, ...] = ()
    read_only: bool = True
    singleton: bool = False
    guard: str = EXEC
    order: str = STOP_FIRST


Reader = Callable[[Any], Any]


def _healthcheck(value: Any) -> Optional[Healthcheck]:
    if value is False:
        return None
    return Healthcheck(**_section(value, _HEALTHCHECK_READERS, "false, or "))


def _health_command(value: Any) -> tuple[str, ...]:
    words = values.command(value)
    if words[0] in ("CMD", "CMD-SHELL", "NONE"):
        raise Unfit("the command alone (without compose's CMD; a shell is [sh, -c, ...]; false means no check)")
    return words


_HEALTHCHECK_READERS: dict[str, Reader] = {
    "test": _health_command, "interval": values.positive_duration, "timeout": values.positive_duration,
    "retries": values.whole(1, 100), "start_period": values.duration,
}
_RESERVATION_READERS: dict[str, Reader] = {"memory": values.size, "cpus": values.cpus}


def _section(value: Any, readers: Mapping[str, Reader], other: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not set(value) <= set(readers):
        raise Unfit(f"{other}a dictionary of {', '.join(readers)}")
    found = {}
    for key, content in value.items():
        try:
            found[str(key)] = readers[key](content)
        except Unfit as error:
            raise Unfit(f"{key} as {error} (not {shown(content)})") from error
    return found


def _each(reader: Reader) -> Callable[[Any], tuple[Any, ...]]:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise Unfit("a list")
        return tuple(_element(reader, element) for element in value)

    return read


def _element(reader: Reader, element: Any) -> Any:
    try:
        return reader(element)
    except Unfit as error:
        raise Unfit(f"{error} (not {shown(element)})") from error


def _names(reader: Reader) -> Callable[[Any], tuple[str, ...]]:
    return lambda value: tuple(sorted(set(_each(reader)(value))))


def _network(value: Any) -> str:
    name: str = _plain_name(value)
    # Compose takes x-… for an extension and "default" for the project's own; the engine's own networks have no names.
    if name in ("host", "none", "bridge", "default") or name.startswith("x-"):
        raise Unfit("user-defined networks (docker network create NAME)")
    return name


_plain_name = values.name_like(PLAIN_NAME)
network_names = _names(_network)


READERS: dict[str, Reader] = {
    "variant": values.name_like(VARIANT_PATTERN),
    "command": values.command,
    "replicas": values.whole(1, MAX_REPLICAS),
    "concurrency": values.whole(1, 10000),
    "environment": values.environment,
    "secrets": _names(_plain_name),
    "memory": values.size,
    "cpus": values.cpus,
    "pids": values.whole(1, 100000),
    "reservations": lambda value: _section(value, _RESERVATION_READERS),
    "healthcheck": _healthcheck,
    "stop_grace_period": values.positive_duration,
    "drain_time": values.duration,
    "volumes": _each(mount),
    "tmpfs": _each(tmpfs_path),
    "networks": network_names,
    "read_only": values.boolean,
    "singleton": values.boolean,
    "guard": values.choice(*MODES),
    "order": values.choice(*ORDERS),
}


def read_services(fleet: Any, services: Any, defaults: Any) -> dict[str, Service]:
    """Read and check a fleet spec.

    :param services: service name → dictionary of the keys in :data:`READERS`; nothing (None) for all defaults.
    :param defaults: the same keys, for every service that doesn't say otherwise; environments are merged.
    :returns: service name → :class:`Service`, in the order of names.
    :raises DriftguardError: names fleet, service and key of every problem.
    """
    problems, label = Problems(), fleet
    if not isinstance(fleet, str) or not FLEET_PATTERN.match(fleet):
        label = "?"
        problems.add("worker_fleet", f"a name that matches {FLEET_PATTERN.pattern}", shown(fleet), "rename the fleet")
    if not isinstance(services, dict) or not services:
        problems.add(f"fleet {label}, worker_fleet_services", "a dictionary of at least one service", shown(services),
                     "describe the services in the inventory (README, 'Your own application')")
        services = {}
    before = len(problems)
    common = _read_keys(f"fleet {label}, worker_service_defaults", {} if defaults is None else defaults, problems)
    whole = len(problems) == before
    found = {}
    for name in sorted(services, key=shown):
        before = len(problems)
        subject = f"fleet {label}, service {shown(name)}"
        service = _read_service(subject, name, services[name], common, problems)
        if service is not None:
            found[service.name] = service
            # What couldn't be read would only look missing.
            if whole and len(problems) == before:
                check_service(subject, service, problems)
    check_volumes(f"fleet {label}", found.values(), problems)
    problems.raise_any()
    return found


def _is_service(name: Any) -> bool:
    return isinstance(name, str) and SERVICE_PATTERN.match(name) is not None


def _read_service(subject: str, name: Any, raw: Any, common: dict[str, Any], problems: Problems) -> Optional[Service]:
    if not _is_service(name):
        problems.add(subject, f"a name that matches {SERVICE_PATTERN.pattern}", shown(name), "rename the service")
        return None
    own = _read_keys(subject, {} if raw is None else raw, problems)
    merged = {**common, **own}
    merged["environment"] = {**common.get("environment", {}), **own.get("environment", {})}
    reserved = merged.pop("reservations", {})
    return Service(
        name=str(name), reserved_memory=reserved.get("memory"), reserved_cpus=reserved.get("cpus"), **merged)


def _read_keys(subject: str, raw: Any, problems: Problems) -> dict[str, Any]:
    if not isinstance(raw, dict):
        problems.add(subject, "a dictionary", shown(raw), "write the service as keys and values")
        return {}
    found = {}
    for key in sorted(raw, key=shown):
        reader = READERS.get(key) if isinstance(key, str) else None
        if reader is None:
            problems.add(
                f"{subject}, key {shown(key)}", f"one of {', '.join(READERS)}", "an unknown key",
                "remove the key or mend its spelling")
            continue
        try:
            found[str(key)] = reader(raw[key])
        except Unfit as error:
            problems.add(f"{subject}, key {key}", str(error), shown(raw[key]), f"mend {key} in the inventory")
    return found


def placed(fleet: str, services: Mapping[str, Service], placement: Optional[Sequence[Any]]) -> dict[str, Service]:
    """The services that run on one host.

    :param placement: names of services, None for all of them.
    :raises DriftguardError: a name that is no service of the fleet.
    """
    if placement is None:
        return dict(services)
    if not isinstance(placement, (list, tuple)):
        raise DriftguardError(
            f"fleet {fleet}, worker_placement", "a list of service names", shown(placement), "write a list")
    unknown = [name for name in placement if not isinstance(name, str) or name not in services]
    if unknown:
        raise DriftguardError(
            f"fleet {fleet}, worker_placement", f"services of the fleet ({', '.join(services)})",
            ", ".join(shown(name) for name in unknown[:SHOWN_PROBLEMS]),
            "mend the name, or describe the service in worker_fleet_services")
    return {name: services[name] for name in services if name in placement}
