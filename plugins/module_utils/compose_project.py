# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compose project as the Compose tool itself reads it, and which of its services are workers."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from . import processes
from .compose_source import HAS_YAML, Sources
from .compose_variables import assignments, read_source
from .errors import DriftguardError
from .secret_names import is_secret_name, password_in_url
from .untrusted import clean

COMPOSE_TIMEOUT = 60.0
MAX_SAID = 600
MAX_SERVICES = 500
# Of the caller's environment nothing decides what a file means but where home is and how programs are found.
_KEPT = ("DOCKER_CONFIG", "HOME", "PATH")
# Nothing is fetched to read a file.
_NO_REMOTE = {"COMPOSE_EXPERIMENTAL_GIT_REMOTE": "false", "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false"}
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[\"']?[ \t]*[:=][ \t]*(\S.*)")
# Images of servers that workers talk to. Only asked where nothing in the project is built.
SERVERS = (
    "caddy", "clickhouse", "elasticsearch", "etcd", "grafana", "haproxy", "httpd", "kafka", "keydb", "mariadb",
    "memcached", "minio", "mongo", "mysql", "nats", "nginx", "opensearch", "postgres", "postgresql", "prometheus",
    "rabbitmq", "redis", "redis-stack", "redis-stack-server", "registry", "traefik", "valkey", "vault", "zookeeper")


@dataclass(frozen=True)
class Project:
    """What was asked to be read.

    :param files: absolute paths, in order; later ones override.
    :param env_files: files with the values of variables; ``.env`` of the directory where none is named.
    """

    files: tuple[Path, ...]
    directory: Path
    env_files: tuple[Path, ...]
    sources: Sources

    @classmethod
    def open(cls, files: Sequence[str], directory: Optional[str], env_files: Sequence[str]) -> Project:
        """Read the files themselves, with all bounds kept, before Compose does.

        :raises DriftguardError: no file, or one that can't be read.
        """
        if not files:
            raise DriftguardError("option files", "at least one compose file", "none", "name the compose file")
        paths = tuple(Path(os.path.abspath(name)) for name in files)
        place = Path(os.path.abspath(directory)) if directory else paths[0].parent
        values = tuple(Path(os.path.abspath(name)) for name in env_files)
        if not values and (place / ".env").exists():
            values = (place / ".env",)
        variables = {
            name: value for path in values for name, value, _line in assignments(read_source(path, "env file"))}
        return cls(paths, place, values, Sources.load(paths, place, variables))

    def raw(self) -> dict[str, Any]:
        """The project with its variables as they are written.

        :raises DriftguardError: Compose refuses it, or it has more than 500 services.
        """
        found = self._config("--no-interpolate")
        number = len(found.get("services", {}))
        if number > MAX_SERVICES:
            raise DriftguardError(
                "compose file", f"at most {MAX_SERVICES} services", str(number), "take its parts one by one")
        return found

    def resolved(self) -> dict[str, Any]:
        """The project as Compose would run it, env files of the services included.

        :raises DriftguardError: Compose refuses it, such as for a variable that must have a value.
        """
        for service in self.raw().get("services", {}).values():
            for path in env_file_paths(service):
                if path.exists():
                    read_source(path, "env file")
        return self._config()

    def _config(self, *options: str) -> dict[str, Any]:
        arguments = ["--project-directory", str(self.directory), "--profile", "*"]
        for path in self.env_files or (Path("/dev/null"),):
            arguments += ["--env-file", str(path)]
        for path in self.files:
            arguments += ["--file", str(path)]
        return read_config(arguments, options, _secrets(self))


def read_config(
    arguments: Sequence[str], options: Sequence[str] = (), secrets: Sequence[str] = (), stdin: bytes = b"",
) -> dict[str, Any]:
    """``docker compose config`` as a document.

    :param arguments: of compose, which name the project; options of ``config`` besides the format.
    :param secrets: texts that must not show in a message.
    :raises DriftguardError: Compose is missing, refuses the file, or takes too long.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise DriftguardError(
            "Docker command line", "docker with the compose plugin in PATH", "no docker",
            "run playbooks/bootstrap.yml on this host, or audit where Compose is")
    own = {name: os.environ[name] for name in _KEPT if name in os.environ}
    done = processes.run(
        [docker, "compose", "--ansi", "never", *arguments, "config", "--format", "json", *options],
        environment={**own, **_NO_REMOTE}, without=("",), stdin=stdin, timeout=COMPOSE_TIMEOUT)
    try:
        found = json.loads(done.stdout) if done.status == 0 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("services", {}), dict):
        raise DriftguardError(
            "compose file", "one that docker compose config reads", clean(_masked(done.tail(), secrets), MAX_SAID),
            "mend the file; for a variable without a value name a file that has it under env_files")
    return found


def env_file_paths(service: Mapping[str, Any]) -> list[Path]:
    """Env files of a service, in order, as Compose's unresolved document has them."""
    listed = service.get("env_file") or []
    listed = [listed] if isinstance(listed, (str, dict)) else listed
    return [Path(str(one.get("path", "") if isinstance(one, dict) else one)) for one in listed]


def workers_of(services: Mapping[str, Any], chosen: Sequence[str] = ()) -> list[str]:
    """The services that are the application's own workers, sorted.

    :param services: of Compose's document.
    :param chosen: those that were named; otherwise what is built here, or has an image that is built here; in a project
        without anything built, what isn't one of the well-known :data:`SERVERS`.
    :raises DriftguardError: a chosen one isn't there.
    """
    unknown = [name for name in chosen if name not in services]
    if unknown:
        raise DriftguardError(
            "option services", f"services of the compose file ({', '.join(map(clean, sorted(services)))})",
            clean(", ".join(unknown)), "mend the names")
    if chosen:
        return sorted(set(chosen))
    built = {name for name, service in services.items() if service.get("build")}
    images = {repository(str(services[name].get("image", ""))) for name in built} - {""}
    if built:
        return sorted(
            name for name, service in services.items() if name in built or repository(_image(service)) in images)
    return sorted(
        name for name, service in services.items() if repository(_image(service)).rpartition("/")[2] not in SERVERS)


def _image(service: Mapping[str, Any]) -> str:
    return str(service.get("image") or "")


def repository(image: str) -> str:
    """An image's name without tag and digest."""
    name = re.sub(r"[:@]?\$\{?.*", "", image).partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def _secrets(project: Project) -> list[str]:
    """What must not show when Compose quotes from a file; the longest first, since one may begin with another."""
    found = {text for name, text in project.sources.texts() if is_secret_name(name) or password_in_url(text)}
    for path in (*project.env_files, *(() if HAS_YAML else project.files)):
        for name, text in _ASSIGNED.findall(read_source(path, "compose or env file")):
            if is_secret_name(name) or password_in_url(text):
                found.add(text.strip().strip("\"'"))
    forms = {form for text in found for form in (text, json.dumps(text)[1:-1], password_in_url(text))}
    return sorted((form for form in forms if len(form) > 3), key=len, reverse=True)


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "********")
    return " ".join(text.split())
