# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults that can be made in a lab, and how each is undone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Callable

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from .outer import Outer
from .reach import slow_file, wait_for_host, write_ssh_files
from .state import Lab

__all__ = ["FAULTS", "Asked", "Fault", "inside"]

PID_FILE = "/run/driftguard-dockerd.pid"
RULE = "INPUT -p tcp --dport 22 -j DROP"
DISKS = {"docker": "/var/lib/docker", "opt": "/opt"}
SLOWEST, FURTHEST = 60_000, 10 * 365 * 86400


@dataclass(frozen=True)
class Asked:
    """What a fault was asked for with; each takes of it what it knows."""

    host: str = ""
    milliseconds: int = 0
    break_after: int = 0
    seconds: int = 0
    disk: str = "docker"
    ssh_only: bool = False


@dataclass(frozen=True)
class Fault:
    """A command.

    :param does: makes it, and says what is so now.
    :param text: what it does, for its help.
    :param takes: names of the arguments, beside the lab.
    """

    does: Callable[[Outer, Lab, Asked], str]
    text: str
    example: str
    takes: tuple[str, ...] = ()


def inside(outer: Outer, lab: Lab, host: str, script: str, *arguments: str) -> str:
    """What a shell script says, run as root in a host without its network.

    :raises DriftguardError: it fails, or the lab has no such host.
    """
    name = lab.container(lab.host(host).name)
    if outer.says("inspect", "--format={{.State.Running}}", name) != "true":
        raise DriftguardError(f"host {host}", "a container that runs", "none", "make lab")
    return outer("exec", name, "sh", "-ec", script, "sh", *arguments)


def _kill_engine(outer: Outer, lab: Lab, asked: Asked) -> str:
    script = (
        "pid=$(cat $1 2>/dev/null) && grep -qsx dockerd /proc/$pid/comm || exit 0; kill -KILL $pid; "
        "while [ -e /proc/$pid/exe ]; do sleep 0.05; done; echo killed")
    if not inside(outer, lab, asked.host, script, PID_FILE):
        raise DriftguardError(
            f"host {asked.host}", "an engine that runs", "none", f"start-engine {asked.host}, or leave it")
    return f"{asked.host}: the engine was killed; its containers run on"


def _start_engine(outer: Outer, lab: Lab, asked: Asked) -> str:
    script = "grep -qsx dockerd /proc/$(cat $1)/comm 2>/dev/null || lab-host engine"
    inside(outer, lab, asked.host, script, PID_FILE)
    wait_for_host(outer, lab, lab.host(asked.host))
    return f"{asked.host}: the engine answers"


def _cut(outer: Outer, lab: Lab, asked: Asked) -> str:
    name = lab.container(lab.host(asked.host).name)
    if asked.ssh_only:
        inside(outer, lab, asked.host, f"iptables -C {RULE} 2>/dev/null || iptables -I {RULE}")
        return f"{asked.host}: SSH is cut; its workers still reach Redis"
    if _connected(outer, lab, name):
        outer("network", "disconnect", lab.network, name)
    return f"{asked.host}: the network is cut"


def _mend(outer: Outer, lab: Lab, asked: Asked) -> str:
    host = lab.host(asked.host)
    if not _connected(outer, lab, lab.container(host.name)):
        outer("network", "connect", f"--ip={host.address}", lab.network, lab.container(host.name))
    inside(outer, lab, asked.host, f"while iptables -D {RULE} 2>/dev/null; do :; done")
    return f"{asked.host}: the network is whole"


def _connected(outer: Outer, lab: Lab, container: str) -> bool:
    return lab.network in outer("inspect", "--format={{json .NetworkSettings.Networks}}", container)


def _slow(_outer: Outer, lab: Lab, asked: Asked) -> str:
    host = lab.host(asked.host)
    if not 0 <= asked.milliseconds <= SLOWEST or asked.break_after < 0:
        raise DriftguardError(
            "slow", f"0 to {SLOWEST} milliseconds and a number of bytes", f"{asked.milliseconds}, {asked.break_after}",
            "correct the number")
    facts = {"milliseconds": asked.milliseconds, "break_after": asked.break_after}
    lab.keep(slow_file(lab, host).name, json.dumps(facts))
    write_ssh_files(lab)
    breaks = f", each connection breaks after {asked.break_after} bytes" if asked.break_after else ""
    return f"{asked.host}: SSH takes {asked.milliseconds} ms more each way{breaks}"


def _fast(_outer: Outer, lab: Lab, asked: Asked) -> str:
    slow_file(lab, lab.host(asked.host)).unlink(missing_ok=True)
    write_ssh_files(lab)
    return f"{asked.host}: SSH is as it was"


def _fill(outer: Outer, lab: Lab, asked: Asked) -> str:
    # The disk shrinks to what is on it: as good as full, and costs no memory. Its size is what `empty` goes back to.
    # A size of 0 would be none.
    script = (
        'test -e /run/lab-full || echo "$1 $(findmnt -nbo SIZE "$1")" >/run/lab-full; '
        'read -r place _size </run/lab-full; '
        'used=$(findmnt -nbo USED "$place"); mount -o remount,size=$((${used:-0} > 4096 ? used : 4096)) "$place"; '
        'echo "$place"')
    place = inside(outer, lab, asked.host, script, DISKS[asked.disk])
    if place != DISKS[asked.disk]:
        raise DriftguardError(f"host {asked.host}", "no full disk yet", f"{place} is full", f"empty {asked.host}")
    return f"{asked.host}: no room is left in {place}"


def _empty(outer: Outer, lab: Lab, asked: Asked) -> str:
    script = (
        "test -e /run/lab-full || exit 0; read -r place size </run/lab-full; "
        'mount -o remount,size="$size" "$place"; rm /run/lab-full')
    inside(outer, lab, asked.host, script)
    return f"{asked.host}: there is room again"


def _skew(outer: Outer, lab: Lab, asked: Asked) -> str:
    if not -FURTHEST <= asked.seconds <= FURTHEST:
        raise DriftguardError("skew", f"at most {FURTHEST} seconds", str(asked.seconds), "correct the number")
    script = 'if [ "$1" = +0 ]; then rm -f /run/lab-skew; else echo "$1" >/run/lab-skew; fi'
    inside(outer, lab, asked.host, script, f"{asked.seconds:+d}")
    return f"{asked.host}: the clock of what Ansible runs there is off by {asked.seconds} s"


def _service(part: str, command: str, state: str) -> Callable[[Outer, Lab, Asked], str]:
    def does(outer: Outer, lab: Lab, _asked: Asked) -> str:
        outer(command, lab.container(part))
        return f"{part}: {state}"
    return does


def _empty_redis(outer: Outer, lab: Lab, _asked: Asked) -> str:
    ask = (
        'REDISCLI_AUTH="$(cat /lab/password)" redis-cli --no-auth-warning --tls --cacert /lab/ca.crt -h "$1" '
        '--user lab FLUSHALL')
    said = outer("exec", lab.container("redis"), "sh", "-c", ask, "sh", f"{lab.subnet}.2")
    if said != "OK":
        raise DriftguardError("redis", "to be emptied", said[:200], "start-redis, then again")
    return "redis: empty"


FAULTS = {
    "kill-engine": Fault(
        _kill_engine, "Kill a host's engine (SIGKILL). Nothing starts it again but start-engine.", "kill-engine host2",
        ("host",)),
    "start-engine": Fault(
        _start_engine, "Start a host's engine and wait until it answers.", "start-engine host2", ("host",)),
    "cut": Fault(
        _cut, "Cut a host's network: from the deployer, Redis and the registry, or from SSH alone.",
        "cut host2 --ssh-only", ("host", "ssh_only")),
    "mend": Fault(_mend, "Undo cut.", "mend host2", ("host",)),
    "slow": Fault(
        _slow, "Slow a host's SSH down. New connections get slow; one that was opened slow follows the number while it "
        "is open, so begin with 0 before what you want to disturb in the middle.",
        "slow host2 200 --break-after 200000", ("host", "milliseconds", "break_after")),
    "fast": Fault(_fast, "Undo slow.", "fast host2", ("host",)),
    "fill": Fault(
        _fill, "Leave no room on a host's disk: the engine's (docker), or the one of /opt (opt).",
        "fill host3 --disk opt", ("host", "disk")),
    "empty": Fault(_empty, "Undo fill.", "empty host3", ("host",)),
    "skew": Fault(
        _skew, "Set the clock of a host off by some seconds; 0 ends it. Containers share this machine's clock, so it "
        "is off for every module that Ansible runs there and the programs these start, where they ask the C library "
        "for the time; not for the engine, Compose, the workers and SSH. On a Debian 12 whatever sleeps fails then: no "
        "rollout works there.", "skew host1 600", ("host", "seconds")),
    "stop-redis": Fault(_service("redis", "stop", "stopped, with what it held on disk"), "Stop Redis.", "stop-redis"),
    "start-redis": Fault(_service("redis", "start", "started"), "Start Redis with what it held.", "start-redis"),
    "empty-redis": Fault(_empty_redis, "Remove everything from Redis while it runs.", "empty-redis"),
    "pause-registry": Fault(
        _service("registry", "pause", "takes connections and never answers"), "Let the registry hang.",
        "pause-registry"),
    "resume-registry": Fault(_service("registry", "unpause", "answers"), "Undo pause-registry.", "resume-registry"),
    "stop-registry": Fault(
        _service("registry", "kill", "gone, with its images"), "Stop the registry; it loses its images.",
        "stop-registry"),
    "start-registry": Fault(
        _service("registry", "start", "started, empty"), "Start the registry, empty.", "start-registry"),
}
