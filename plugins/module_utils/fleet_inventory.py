# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet over its hosts: who runs what, in which order hosts are rolled. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import Any, Mapping, Sequence

from .errors import DriftguardError
from .fleet_spec import Service, placed, read_services
from .fleet_values import shown

_SIZE = re.compile(r"^0{0,5}([1-9][0-9]{0,5})(%?)\Z")


@dataclass(frozen=True)
class FleetPlan:
    """Hosts in batches, the services of each host, and the one host of each singleton."""

    batches: tuple[tuple[str, ...], ...]
    placement: Mapping[str, tuple[str, ...]]
    instances: int
    singletons: Mapping[str, str]


def plan_fleet(
    fleet: Any, group: str, hosts: Mapping[str, Any], services: Any, defaults: Any, batches: Sequence[Any],
    selected: Sequence[str], single_engine: bool,
) -> FleetPlan:
    """Check an inventory as a whole and put its hosts into batches.

    :param group: name of the inventory group, for messages.
    :param hosts: host → names of the services placed there, None or False for all.
    :param batches: sizes such as 1 or "25%"; the last one repeats until no host is left.
    :param selected: services named on the command line, empty for all.
    :param single_engine: images are only on the engine that built them, since nothing is pushed.
    :raises DriftguardError: an empty group, a service without a host, a singleton with more than one, a bad batch.
    """
    if not hosts:
        raise DriftguardError(
            f"inventory group {group}", "at least one host", "none",
            "put hosts into the group, or name another one with -e worker_group=NAME")
    spec = read_services(fleet, services, defaults)
    placement = {
        host: tuple(placed(f"{fleet}, host {host}", spec, None if wanted is False else wanted))
        for host, wanted in hosts.items()
    }
    _check_placement(str(fleet), spec, placement)
    _check_selected(str(fleet), spec, selected)
    if single_engine and len(hosts) > 1:
        raise DriftguardError(
            f"fleet {fleet}", "a registry, since it has more than one host", f"{len(hosts)} hosts and no registry",
            "set worker_image_repository to a repository in your registry and worker_image_push to true")
    instances = sum(spec[name].replicas for names in placement.values() for name in names)
    singletons = {name: host for host, names in placement.items() for name in names if spec[name].singleton}
    return FleetPlan(batched(tuple(hosts), batches), placement, instances, singletons)


def batched(hosts: Sequence[str], sizes: Sequence[Any]) -> tuple[tuple[str, ...], ...]:
    """Hosts in batches of the given sizes; percentages are of all hosts, at least one host each.

    :raises DriftguardError: a size that is neither a positive number nor a percentage.
    """
    counts = [_count(size, len(hosts)) for size in sizes] or [len(hosts)]
    found: list[tuple[str, ...]] = []
    rest = tuple(hosts)
    while rest:
        count = counts[min(len(found), len(counts) - 1)]
        found.append(rest[:count])
        rest = rest[count:]
    return tuple(found)


def _count(size: Any, total: int) -> int:
    found = _SIZE.match(size.strip() if isinstance(size, str) else repr(size))
    if found is None:
        raise DriftguardError(
            "worker_batches", "sizes such as 1 or 25%", shown(size), "write a list of numbers and percentages")
    number = int(found[1])
    return ceil(total * min(number, 100) / 100) if found[2] else number


def _check_placement(fleet: str, spec: Mapping[str, Service], placement: Mapping[str, Sequence[str]]) -> None:
    for host, names in placement.items():
        if not names:
            raise DriftguardError(
                f"fleet {fleet}, host {host}, worker_placement", "at least one service", "none",
                "place one, or take the host out of the group")
    for name, service in spec.items():
        on = [host for host, names in placement.items() if name in names]
        if not on:
            raise DriftguardError(
                f"fleet {fleet}, service {name}", "a host that runs it", "none",
                "add it to a host's worker_placement, or remove the service")
        if service.singleton and len(on) > 1:
            raise DriftguardError(
                f"fleet {fleet}, service {name}", "one host, since it is a singleton", ", ".join(on),
                "leave it in one host's worker_placement")


def _check_selected(fleet: str, spec: Mapping[str, Service], selected: Sequence[str]) -> None:
    unknown = [name for name in selected if name not in spec]
    if unknown:
        raise DriftguardError(
            f"fleet {fleet}, worker_services", f"services of the fleet ({', '.join(spec)})", ", ".join(unknown),
            "mend the names")
