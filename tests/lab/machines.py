# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers of a lab: its hosts, its registry and its Redis, each with files of its own."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass

from support.inner_engine import PREPARE, engine_in_a_container

from .images import Images
from .outer import Outer
from .state import Host, Lab

__all__ = ["CA_FILE", "USER", "ensure_host", "ensure_redis", "ensure_registry"]

#: Who is who: on the hosts (who may use sudo), and for the registry.
USER = "deploy"
#: The authority of Redis's and the registry's certificates, as hosts have it.
CA_FILE = "/etc/driftguard-lab/ca.crt"
USER_ID = 1000  # the first that useradd gives
REDIS_ID = 999
# The engines' own networks, away from those of this machine.
DAEMON = {"bip": "10.214.0.1/24", "default-address-pools": [{"base": "10.215.0.0/16", "size": 24}]}
REDIS = """\
bind 0.0.0.0
port 0
tls-port 6379
tls-cert-file /lab/server.crt
tls-key-file /lab/server.key
tls-ca-cert-file /lab/ca.crt
tls-auth-clients no
aclfile /lab/users.acl
dir /data
appendonly yes
save ""
maxmemory-policy noeviction
"""
# Not even workers with another's password may empty or stop it; the lab itself may. Nobody logs in as the default user,
# which may do everything all the same: in its name Redis 7 reads its own file again, and silently drops each
# transaction that this user may not do (https://github.com/redis/redis/issues/14541).
USERS = """\
user default off ~* &* +@all
user workers on #{workers} ~* &* +@all -flushall -flushdb -shutdown
user lab on #{lab} ~* &* +@all
"""
REGISTRY = """\
version: 0.1
storage: {filesystem: {rootdirectory: /data}, delete: {enabled: true}}
http: {addr: ":5000", tls: {certificate: /lab/server.crt, key: /lab/server.key}}
auth: {htpasswd: {realm: lab, path: /lab/htpasswd}}
"""


@dataclass(frozen=True)
class File:
    """A file of a container."""

    content: str
    owner: int = 0
    mode: int = 0o644


def ensure_host(outer: Outer, lab: Lab, host: Host, images: Images, disk: str) -> None:
    """Have a host run.

    :param disk: size of its engine's disk, which is in memory; /opt has a small one of its own.
    """
    volumes = {"/var/lib/docker": f"size={disk},mode=711", "/opt": "size=64m,mode=755"}
    mounts: list[str] = []
    for path, options in volumes.items():
        volume = f"{lab.container(host.name)}{path.replace('/', '-')}"
        mounts.append(f"--volume={volume}:{path}")
        if not outer.says("volume", "ls", "--quiet", f"--filter=name={volume}"):
            outer("volume", "create", "--driver=local", "--opt=type=tmpfs", "--opt=device=tmpfs", f"--opt=o={options}",
                  *lab.labels(), volume)
    command = [images[host.suite], "sh", "-c", PREPARE + "/usr/local/sbin/lab-host"]
    _ensure(outer, lab, host.name, host.address, ["--init", *mounts, *command], _host_files(lab, host))


def _host_files(lab: Lab, host: Host) -> dict[str, File]:
    ca = (lab.directory / "ca.crt").read_text()
    features = {"features": {"containerd-snapshotter": True}} if host.store == "containerd" else {}
    return {
        "etc/docker/daemon.json": File(json.dumps({**DAEMON, **features}, indent=2) + "\n"),
        f"etc/docker/certs.d/{lab.registry}/ca.crt": File(ca),
        CA_FILE.lstrip("/"): File(ca),
        "etc/ssh/ssh_host_ed25519_key": File((lab.directory / f"{host.name}.key").read_text(), mode=0o600),
        f"home/{USER}/.ssh/": File("", USER_ID, 0o700),
        f"home/{USER}/.ssh/authorized_keys": File((lab.directory / "key.pub").read_text(), USER_ID, 0o600)}


def ensure_redis(outer: Outer, lab: Lab, images: Images) -> None:
    """Have Redis run: TLS, a user for the fleet and one for the lab, everything kept on disk."""
    hashes = {user: hashlib.sha256(lab.secret(f"redis-{user}").encode()).hexdigest() for user in ("workers", "lab")}
    files = {
        "lab/redis.conf": File(REDIS), "lab/users.acl": File(USERS.format(**hashes), REDIS_ID, 0o600),
        "lab/password": File(lab.secret("redis-lab"), REDIS_ID, 0o600), **_served(lab, REDIS_ID)}
    _ensure(outer, lab, "redis", f"{lab.subnet}.2", [images["redis"], "/lab/redis.conf"], files)


def ensure_registry(outer: Outer, lab: Lab, images: Images) -> None:
    """Have the registry run: TLS and a password."""
    hashed = outer("run", "--rm", "--interactive", "--network=none", *lab.labels(), images["registry"],
                   "htpasswd", "-niB", USER, stdin=lab.secret("registry-password").encode())
    files = {"lab/registry.yml": File(REGISTRY), "lab/htpasswd": File(hashed + "\n"), **_served(lab, 0)}
    command = ["docker-registry", "serve", "/lab/registry.yml"]
    _ensure(outer, lab, "registry", f"{lab.subnet}.3", ["--tmpfs=/data", images["registry"], *command], files)


def _served(lab: Lab, owner: int) -> dict[str, File]:
    names = ("ca.crt", "server.crt", "server.key")
    return {f"lab/{name}": File((lab.directory / name).read_text(), owner, 0o600) for name in names}


def _ensure(outer: Outer, lab: Lab, part: str, address: str, rest: list[str], files: dict[str, File]) -> None:
    """Make and start a container; nothing where it runs.

    :param rest: further options, the image and its command.
    """
    name = lab.container(part)
    status = outer.says("container", "inspect", "--format={{.State.Status}}", name)
    if status in ("running", "paused"):
        return
    if status == "created":  # cut off before it was whole
        outer("rm", "--force", name)
    if status in ("", "created"):
        own = engine_in_a_container(name) if part in lab.hosts else [f"--name={name}"]
        outer("create", *own, *lab.labels(), f"--network={lab.network}", f"--hostname={part}", f"--ip={address}", *rest)
        outer("cp", "-", f"{name}:/", stdin=_packed(files))
    outer("start", name)


def _packed(files: dict[str, File]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, file in files.items():
            member = tarfile.TarInfo(path.rstrip("/"))
            member.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
            content = file.content.encode()
            member.size, member.mode, member.uid, member.gid = len(content), file.mode, file.owner, file.owner
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
