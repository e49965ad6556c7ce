# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab's life: up, down, and what it is like now."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from tools.processes import side_by_side

from .images import provide
from .machines import ensure_host, ensure_redis, ensure_registry
from .outer import Outer
from .reach import is_slow, make_keys, trust, untrust, wait_for_host, write_ssh_files
from .state import LABEL, MOST_HOSTS, Lab, host_plan, labs

__all__ = ["bring_down", "bring_up", "describe"]

NETWORKS = "10.213"
REMOVALS = (
    ("container", "{{.Names}}", ("ls", "--all"), ("rm", "--force", "--volumes")),
    ("network", "{{.Name}}", ("ls",), ("rm",)),
    ("volume", "{{.Name}}", ("ls",), ("rm", "--force")),
)


def bring_up(name: str, hosts: int, disk: str = "3g") -> Lab:
    """Have a lab with at least some hosts; what is there stays.

    :param disk: size of each engine's disk, in memory.
    :raises DriftguardError: it can't be; says what to do.
    """
    if not 1 <= hosts <= MOST_HOSTS:
        raise DriftguardError("number of hosts", f"1 to {MOST_HOSTS}", str(hosts), "choose another one")
    outer = Outer()
    lab = Lab.read(name) if name in labs() else Lab.new(name)
    plans = {number: host_plan(number, "") for number in range(1, hosts + 1)}
    images = provide(outer, {host.suite for host in (*plans.values(), *lab.hosts.values())})
    lab = replace(lab, base=images["base"])
    _ensure_network(outer, lab)
    lab.hosts.update({plan.name: host_plan(number, lab.subnet) for number, plan in plans.items()})
    lab.write()
    make_keys(lab)
    write_ssh_files(lab)
    jobs = [partial(ensure_redis, outer, lab, images), partial(ensure_registry, outer, lab, images)]
    jobs += [partial(ensure_host, outer, lab, host, images, disk) for host in lab.hosts.values()]
    side_by_side(jobs, 4)
    side_by_side([partial(wait_for_host, outer, lab, host) for host in lab.hosts.values()], len(lab.hosts))
    trust(lab)
    return lab


def _ensure_network(outer: Outer, lab: Lab) -> None:
    if lab.subnet and outer.says("network", "ls", "--quiet", f"--filter=name={lab.network}"):
        return
    for number in range(256):
        lab.subnet = f"{NETWORKS}.{number}"
        options = [f"--subnet={lab.subnet}.0/24", f"--gateway={lab.deployer}", *lab.labels()]
        done = outer.run(["network", "create", *options, lab.network])
        said = done.stderr.decode("utf-8", "replace")
        if done.returncode == 0:
            lab.write()
            return
        if "overlap" not in said:
            raise DriftguardError(f"network {lab.network}", "to be made", said.strip()[-300:], "mend what it says")
    raise DriftguardError(
        f"network {lab.network}", f"a free one of {NETWORKS}.0.0/16", "none", "remove networks that nobody needs")


def bring_down(name: str) -> list[str]:
    """Remove a lab with all it has; what was removed. Nothing where there is none."""
    if name not in labs():
        Lab.new(name)  # refuses what is no name
        return []
    outer, lab = Outer(), Lab.read(name)
    removed = []
    for kind, form, listing, removal in REMOVALS:
        found = outer(kind, *listing, f"--format={form}", f"--filter=label={LABEL}={lab.identity}").split()
        if found:
            outer(kind, *removal, *found)
        removed += [f"{kind} {thing}" for thing in found]
    untrust(lab)
    lab.forget()
    return removed


def describe(lab: Lab) -> list[dict[str, Any]]:
    """What each part of a lab is like now."""
    outer = Outer()
    rows = side_by_side([partial(_host, outer, lab, name) for name in lab.hosts], len(lab.hosts) or 1)
    for part, address in (("redis", lab.redis_url), ("registry", lab.registry)):
        rows.append({"name": part, "address": address, "state": _status(outer, lab, part), "faults": []})
    return rows


def _host(outer: Outer, lab: Lab, name: str) -> dict[str, Any]:
    host = lab.hosts[name]
    script = (
        "docker version --format '{{.Server.Version}}' 2>/dev/null || echo dead; test -s /run/lab-skew && "
        "echo clock off by $(cat /run/lab-skew) s; test -e /run/lab-full && sed 's/ .*/ full/' /run/lab-full; "
        "iptables -C INPUT -p tcp --dport 22 -j DROP 2>/dev/null && echo SSH cut; true")
    said = outer.says("exec", lab.container(name), "sh", "-c", script).splitlines()
    engine, faults = (said[0], said[1:]) if said else ("dead", [])
    networks = outer.says("inspect", "--format={{json .NetworkSettings.Networks}}", lab.container(name))
    faults += ["network cut"] if lab.network not in networks else []
    faults += ["SSH slowed"] if is_slow(lab, host) else []
    faults += ["engine dead"] if engine == "dead" else []
    kind = f"{host.suite}, engine {engine}, {host.store} image store"
    return {"name": name, "address": host.address, "state": _status(outer, lab, name), "kind": kind, "faults": faults}


def _status(outer: Outer, lab: Lab, part: str) -> str:
    return outer.says("inspect", "--format={{.State.Status}}", lab.container(part)) or "missing"
