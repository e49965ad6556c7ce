# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How this machine reaches the hosts: keys made for the lab, a file of options for SSH, trust in the registry."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Sequence

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from support.certificates import make_certificates

from tools.owned import LAB_MARKS
from tools.processes import as_root

from .machines import USER
from .outer import Outer
from .state import Host, Lab

__all__ = [
    "connect", "is_slow", "make_keys", "slow_file", "trust", "untrust", "wait_for_host", "write_ssh_files"]

DAYS = 365
TRUSTED = Path(LAB_MARKS).parents[1]
MARK = Path(LAB_MARKS).name
SECONDS = 60
OPTIONS = """\
Host *
  User {user}
  IdentityFile "{directory}/key"
  IdentitiesOnly yes
  UserKnownHostsFile "{directory}/known_hosts"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ServerAliveInterval 3
  ServerAliveCountMax 2
  ConnectTimeout 5
"""


def make_keys(lab: Lab) -> None:
    """Certificates of the services, the deployer's key and a host key for each host, where they are missing."""
    if not (lab.directory / "server.crt").exists():
        make_certificates(lab.directory, f"{lab.subnet}.2", f"{lab.subnet}.3", days=DAYS)
    for name in ("key", *(f"{host}.key" for host in lab.hosts)):
        path = lab.directory / name
        if not path.with_name(f"{name}.pub").exists():
            path.unlink(missing_ok=True)
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"driftguard-{lab.name}", "-f", str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    for path in lab.directory.glob("*.key"):
        path.chmod(0o600)


def write_ssh_files(lab: Lab) -> None:
    """The hosts' keys, pinned, and what ``ssh -F`` needs to know of each host."""
    keys = {host.name: (lab.directory / f"{host.name}.key.pub").read_text().split()[:2] for host in lab.hosts.values()}
    lab.keep("known_hosts", "".join(f"{name} {' '.join(key)}\n" for name, key in keys.items()))
    hosts = "".join(_options(lab, host) for host in lab.hosts.values())
    lab.keep("ssh_config", hosts + OPTIONS.format(user=USER, directory=lab.directory))


def _options(lab: Lab, host: Host) -> str:
    lines = [f"Host {host.name} {host.address}", f"  HostName {host.address}", f"  HostKeyAlias {host.name}"]
    if is_slow(lab, host):
        words = [sys.executable, str(Path(__file__).with_name("slow_ssh.py")), str(slow_file(lab, host))]
        lines.append(f"  ProxyCommand {shlex.join(words).replace('%', '%%')} %h %p")
    return "\n".join([*lines, ""])


def slow_file(lab: Lab, host: Host) -> Path:
    """Where it says how slow a host's SSH is."""
    return lab.directory / f"{host.name}.slow"


def is_slow(lab: Lab, host: Host) -> bool:
    """Whether new connections to a host are slowed."""
    return slow_file(lab, host).exists()


def connect(lab: Lab, host: Host, *command: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command on a host, over SSH as its ordinary user."""
    return subprocess.run(
        ["ssh", "-F", str(lab.directory / "ssh_config"), host.name, "--", shlex.join(command)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False)


def wait_for_host(outer: Outer, lab: Lab, host: Host) -> None:
    """Wait until a host can be worked with.

    :raises DriftguardError: it can't; says what its engine said last.
    """
    # One process that waits there: each of its own would cost more than the wait.
    script = f"for i in $(seq {SECONDS * 5}); do docker version >/dev/null 2>&1 && exit; sleep 0.2; done; exit 1"
    if outer.run(["exec", lab.container(host.name), "sh", "-c", script]).returncode == 0:
        found = connect(lab, host, "sudo", "docker", "version", "--format", "{{.Server.Version}}")
        if found.returncode == 0:
            return
        raise DriftguardError(
            f"host {host.name}", "to be reached over SSH", found.stderr.strip()[-300:] or "no answer",
            f"mend {host.name}; or make lab-down, then make lab")
    said = outer.says("exec", lab.container(host.name), "tail", "-n", "5", "/var/log/dockerd.log")
    raise DriftguardError(
        f"host {host.name}", f"an engine that answers within {SECONDS} s", said[-600:] or "nothing",
        f"start-engine {host.name}, empty {host.name}, or mend what it says")


def trust(lab: Lab) -> None:
    """Let this machine's engine take the registry for what it is; it reads that at each push."""
    place = TRUSTED / lab.registry
    with tempfile.TemporaryDirectory() as name:
        mark = Path(name) / MARK
        mark.write_text(f"{lab.network}\n")
        _as_root(["install", "-d", "-m", "755", str(place)])
        _as_root(["install", "-m", "644", str(lab.directory / "ca.crt"), str(mark), str(place)])


def untrust(lab: Lab) -> None:
    """Undo :func:`trust`, where it is this lab's."""
    place = TRUSTED / lab.registry
    mark = place / MARK
    if lab.subnet and mark.exists() and mark.read_text().strip() == lab.network:
        _as_root(["rm", "-rf", "--", str(place)])


def _as_root(command: Sequence[str]) -> None:
    done = subprocess.run(as_root(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DriftguardError(
            " ".join(command[:2]), "exit status 0", done.stderr.strip()[-300:], "mend what it says and run it again")
