# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a lab, and where: one directory per lab below .cache/lab, readable by its owner alone."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from tools.paths import CACHE

__all__ = ["Host", "Lab", "host_plan", "labs"]

PLACES = CACHE / "lab"
DEFAULT = "lab"
MOST_HOSTS = 50
#: With the socket's own name, and what SSH adds to it while it makes it, 107 characters at most.
LONGEST_SOCKETS = 75
LABEL = "io.driftguard.lab"
_NAME = re.compile(r"[a-z][a-z0-9]{0,15}\Z")
_IDENTITY = re.compile(r"[0-9a-f]{6}\Z")


@dataclass(frozen=True)
class Host:
    """A host of a lab.

    :param address: on the lab's network.
    :param suite: its Debian release.
    :param store: ``classic`` or ``containerd``, where its engine keeps images.
    """

    name: str
    address: str
    suite: str = "trixie"
    store: str = "classic"


def host_plan(number: int, subnet: str) -> Host:
    """The host of a number: the second has the containerd image store, the third is a Debian 12.

    :param subnet: first three numbers of the network, such as ``10.213.0``.
    """
    odd: dict[int, dict[str, str]] = {2: {"store": "containerd"}, 3: {"suite": "bookworm"}}
    return Host(f"host{number}", f"{subnet}.{10 + number}", **odd.get(number, {}))


@dataclass
class Lab:
    """One lab.

    :param name: of its directory; several labs may be up at once.
    :param identity: in the names of its containers and its network.
    :param subnet: first three numbers of its network.
    :param base: reference of the image that workers are built from.
    """

    name: str
    identity: str
    subnet: str = ""
    base: str = ""
    hosts: dict[str, Host] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not _IDENTITY.match(self.identity):  # it is part of what is removed in the end
            raise ValueError(f"{self.identity!r} is no identity of a lab")

    @classmethod
    def new(cls, name: str) -> Lab:
        """A lab that has nothing yet.

        :raises DriftguardError: that is no name for one.
        """
        return cls(name, secrets.token_hex(3))

    @classmethod
    def read(cls, name: str = DEFAULT) -> Lab:
        """A lab that was made.

        :raises DriftguardError: there is none of that name, or what is known of it is damaged.
        """
        _check_name(name)
        path = PLACES / name / "lab.json"
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            hosts = {key: Host(**host) for key, host in facts.pop("hosts").items()}
            facts.pop("sockets")
            return cls(**facts, hosts=hosts)
        except FileNotFoundError:
            raise DriftguardError(
                f"lab {name}", "to be up", "no such lab", f"make lab ({_command(name)} up)") from None
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise DriftguardError(
                f"lab {name}", f"what `up` writes to {path}", str(error)[:200],
                "make clean, which removes all labs by their labels") from error

    def write(self) -> None:
        """Keep what is known; whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        self.keep("lab.json", json.dumps({**asdict(self), "sockets": str(self.sockets)}, indent=2) + "\n")

    def keep(self, name: str, content: str) -> Path:
        """Write one of its files, for its owner alone."""
        path = self.directory / name
        draft = path.with_name(f".{name}.new")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(content)
        draft.replace(path)
        return path

    def secret(self, name: str) -> str:
        """A password of this lab, made when it is asked for the first time."""
        path = self.directory / name
        if not path.exists():
            self.keep(name, secrets.token_urlsafe(24))
        return path.read_text(encoding="utf-8")

    def forget(self) -> None:
        """Remove all that is known."""
        for place in (self.sockets, self.directory):
            shutil.rmtree(place, ignore_errors=True)

    def host(self, name: str) -> Host:
        """A host by name.

        :raises DriftguardError: it has none of that name.
        """
        if name not in self.hosts:
            raise DriftguardError(
                f"lab {self.name}", f"one of its hosts: {', '.join(self.hosts) or 'none'}", name, "correct the name")
        return self.hosts[name]

    @property
    def directory(self) -> Path:
        """Its files."""
        return PLACES / self.name

    @property
    def sockets(self) -> Path:
        """Directory for SSH's sockets, whose paths have to be short."""
        near = self.directory / "ssh"
        far = Path(tempfile.gettempdir()) / f"driftguard-lab-{self.identity}"
        return near if len(str(near)) <= LONGEST_SOCKETS else far

    @property
    def network(self) -> str:
        """Name of its network."""
        return f"driftguard-{self.name}-{self.identity}"

    @property
    def deployer(self) -> str:
        """This machine's address on its network."""
        return f"{self.subnet}.1"

    @property
    def registry(self) -> str:
        """Name of its registry, as images begin with it."""
        return f"{self.subnet}.3:5000"

    @property
    def redis_url(self) -> str:
        """Its Redis, without the password."""
        return f"rediss://workers@{self.subnet}.2:6379/0"

    def container(self, part: str) -> str:
        """Name of a container: a host, ``redis`` or ``registry``."""
        return f"{self.network}-{part}"

    def labels(self) -> list[str]:
        """Options that mark a thing as the lab's, so that cleaning finds it."""
        return ["--label=io.driftguard.test=lab", f"--label={LABEL}={self.identity}"]


def labs() -> list[str]:
    """Names of the labs of this checkout."""
    return sorted(path.parent.name for path in PLACES.glob("*/lab.json"))


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise DriftguardError(
            "name of a lab", "1 to 16 lower-case letters and digits, a letter first", repr(name[:60]),
            "choose another one")


def _command(name: str) -> str:
    return ".venv/bin/python -m tests.lab" + ("" if name == DEFAULT else f" --name {name}")
