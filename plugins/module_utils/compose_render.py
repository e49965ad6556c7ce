# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the compose file of one host for one revision: a pure function, byte-stable for equal input."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from .compose_checks import check_against_image
from .compose_yaml import escaped, to_yaml
from .errors import DriftguardError
from .fleet_spec import Service
from .fleet_values import size_text
from .guard_command import NODE, SUPERVISE, guard_command, health_command
from .names import (
    GUARD_MOUNT,
    LABEL_FLEET,
    LABEL_SERVICE,
    LABEL_SPEC,
    SECRETS_MOUNT,
    compose_project,
    guard_directory,
)
from .node_guard import with_node_guard
from .release_info import VariantImage
from .rollout_order import START_FIRST

# Ends where a secret's name can't go on, so that no file passes for one whose name it begins. Ahead, so that matches
# may overlap: the fleet's own directory may lie below one that is called secrets too.
_SECRET_FILE = re.compile(r"(?=/secrets/([0-9]+/[A-Za-z0-9_.-]+))")
UNKNOWN_IMAGE = "(known after the build)"
REDIS_PASSWORD = "redis_password"
START_INTERVAL = "2s"
LOG_ROTATION = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


@dataclass(frozen=True)
class Surroundings:
    """What a compose file depends on besides the services.

    :param host: the inventory's name of the host.
    :param root: directory of the fleet on the host, such as /opt/driftguard/demo.
    :param redis_url: as the workers use it, without a password.
    :param secret_marks: secret name → keyed digest of its content. It is part of the file's name, so that a changed
        secret recreates its containers and an older revision still names the older content.
    :param start_interval: whether the engine knows health-check start intervals.
    :param networks: external networks that every service joins.
    """

    fleet: str
    host: str
    root: str
    sha: str
    redis_url: str
    production: bool = True
    networks: tuple[str, ...] = ()
    secret_marks: Mapping[str, str] = field(default_factory=dict)
    start_interval: bool = False


@dataclass(frozen=True)
class Rendered:
    """A compose file and what the rollout needs of it, service by service."""

    text: str
    services: dict[str, dict[str, Any]]


def render(around: Surroundings, services: Mapping[str, Service], images: Mapping[str, VariantImage]) -> Rendered:
    """The compose file of one host.

    :param services: the services placed on this host.
    :param images: variant → image; a variant that is missing is rendered as not built yet.
    :raises DriftguardError: a mount over an image's code, an image without a command, an unknown secret.
    """
    document: dict[str, Any] = {"name": compose_project(around.fleet), "services": {}}
    desired: dict[str, dict[str, Any]] = {}
    for name in sorted(services):
        service, image = services[name], images.get(services[name].variant)
        if image is not None:
            check_against_image(around.fleet, service, image)
        body = _service(around, service, image)
        # The files, not only their marks: a container that mounts an older layout's file is not this revision's.
        mark = _spec_hash(body, [_secret_file(around, secret, image) for secret in _secret_names(around, service)])
        body["labels"] = {LABEL_FLEET: around.fleet, LABEL_SERVICE: name, LABEL_SPEC: mark}
        # After the hash: another number of replicas must not recreate those that are right.
        body["deploy"]["replicas"] = service.replicas
        # Likewise: how instances are replaced is nothing that an instance is made of.
        if service.order == START_FIRST:
            body["deploy"]["update_config"] = {"order": START_FIRST}
        document["services"][name] = body
        desired[name] = {
            "variant": service.variant, "replicas": service.replicas, "image": image.image if image else None,
            "spec": mark if image else None, "guard": service.guard, "grace": service.stop_grace_period,
            "memory": service.memory,
            # What has to be there before anything is stopped: compose would only notice afterwards.
            "networks": sorted({*around.networks, *service.networks}),
            "paths": sorted(mount.source for mount in service.volumes if mount.kind == "bind"),
            "volumes": sorted(mount.source for mount in service.volumes if mount.external),
            **({"order": START_FIRST} if service.order == START_FIRST else {}),
        }
    document.update(_shared(around, services, images))
    return Rendered(to_yaml(escaped(document)), desired)


def _service(around: Surroundings, service: Service, image: Optional[VariantImage]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "image": image.image if image else UNKNOWN_IMAGE,
        "pull_policy": "never",
        "entrypoint": guard_command(image, service.guard) if image else [UNKNOWN_IMAGE],
        "command": _command(around, service, image),
        "environment": _environment(around, service),
        "restart": "always",
        "init": True,
        "read_only": service.read_only,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": list(service.tmpfs),
        "stop_grace_period": f"{service.stop_grace_period}s",
        "logging": LOG_ROTATION,
        "volumes": [_guard_mount(around)] + [_volume(mount) for mount in service.volumes],
    }
    health = _health(around, service, image)
    if health:
        body["healthcheck"] = health
    names = _secret_names(around, service)
    if names:
        body["secrets"] = [{"source": _secret_key(name, image), "target": name} for name in names]
    networks = sorted({*around.networks, *service.networks})
    if networks:
        body["networks"] = networks
    body["deploy"] = {"resources": _resources(service)}
    return body


def _command(around: Surroundings, service: Service, image: Optional[VariantImage]) -> list[str]:
    words = list((image.entrypoint if image else [])) + list(service.command or (image.cmd if image else []))
    if service.guard == NODE and image is not None:
        return with_node_guard(f"fleet {around.fleet}, service {service.name}", words)
    return words


def _environment(around: Surroundings, service: Service) -> dict[str, str]:
    mode = "production" if around.production else "development"
    own = {
        "BULLMQ_PREFIX": around.fleet,
        **service.environment,
        "EXPECTED_GIT_SHA": around.sha,
        "NODE_ENV": mode,
        "REDIS_URL": around.redis_url,
        "WORKER_CONCURRENCY": str(service.concurrency),
        "WORKER_DRAIN_SECONDS": str(service.drain_time),
        "WORKER_ENV": mode,
        "WORKER_FLEET": around.fleet,
        "WORKER_HOST": around.host,
        "WORKER_TYPE": service.name,
    }
    if REDIS_PASSWORD in around.secret_marks:
        own["REDIS_PASSWORD_FILE"] = f"{SECRETS_MOUNT}/{REDIS_PASSWORD}"
    return dict(sorted(own.items()))


def _guard_mount(around: Surroundings) -> dict[str, Any]:
    return {
        "type": "bind", "source": guard_directory(around.root), "target": GUARD_MOUNT, "read_only": True,
        "bind": {"create_host_path": False},
    }


def _volume(mount: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": mount.kind, "source": mount.source, "target": mount.target, "read_only": mount.read_only
    }
    if mount.kind == "bind":
        body["bind"] = {"create_host_path": False}
    return body


def _health(around: Surroundings, service: Service, image: Optional[VariantImage]) -> Optional[dict[str, Any]]:
    health = service.healthcheck
    if health is None:
        return {"disable": True}
    test = health.test
    if not test and image and not image.healthcheck and service.guard == SUPERVISE:
        test = tuple(health_command(image))
    if not test and not (image and image.healthcheck):
        return None
    body: dict[str, Any] = {"test": ["CMD", *test]} if test else {}
    body.update(
        interval=f"{health.interval}s", timeout=f"{health.timeout}s", retries=health.retries,
        start_period=f"{health.start_period}s")
    if around.start_interval:
        body["start_interval"] = START_INTERVAL
    return body


def _resources(service: Service) -> dict[str, Any]:
    limits: dict[str, Any] = {"memory": size_text(service.memory), "pids": service.pids}
    if service.cpus is not None:
        limits["cpus"] = str(service.cpus)
    reserved: dict[str, Any] = {}
    if service.reserved_memory is not None:
        reserved["memory"] = size_text(service.reserved_memory)
    if service.reserved_cpus is not None:
        reserved["cpus"] = str(service.reserved_cpus)
    return {"limits": limits, **({"reservations": reserved} if reserved else {})}


def _secret_names(around: Surroundings, service: Service) -> list[str]:
    names = sorted({*service.secrets, *([REDIS_PASSWORD] if REDIS_PASSWORD in around.secret_marks else [])})
    unknown = [name for name in names if name not in around.secret_marks]
    if unknown:
        raise DriftguardError(
            f"fleet {around.fleet}, service {service.name}, key secrets", "names that worker_secrets has",
            ", ".join(unknown),
            "add the secret to worker_secrets (in a vault), or drop the name")
    return names


def _secret_key(name: str, image: Optional[VariantImage]) -> str:
    return f"{name}.{image.uid if image else 'unknown'}"


def _secret_file(around: Surroundings, name: str, image: Optional[VariantImage]) -> str:
    return secret_path(around.root, name, around.secret_marks[name], image.uid) if image else UNKNOWN_IMAGE


def secret_path(root: str, name: str, mark: str, uid: int) -> str:
    """File of a secret on the host; one per uid, since compose can't give a mounted file another owner.

    :param mark: keyed digest of the content: another content is another file, so that a revision finds its own again.
    """
    return f"{root}/secrets/{uid}/{name}.{mark}"


def secret_owners(
    around: Surroundings, services: Mapping[str, Service], images: Mapping[str, VariantImage],
) -> set[tuple[str, int, int]]:
    """Which secret is whose, by the files that the compose file names: secret name, uid and gid."""
    known = [(service, images[service.variant]) for service in services.values() if service.variant in images]
    return {(name, image.uid, image.gid) for service, image in known for name in _secret_names(around, service)}


def named_secrets(compose: str) -> set[str]:
    """The files that a compose file names below the fleet's ``secrets``, as ``<uid>/<file>``, of any layout.

    Read as text, since a host may keep many revisions and parsing each takes long. What else looks like such a path
    is taken for one: better a file too many is kept.
    """
    return set(_SECRET_FILE.findall(compose))


def _shared(
    around: Surroundings, services: Mapping[str, Service], images: Mapping[str, VariantImage],
) -> dict[str, Any]:
    secrets: dict[str, Any] = {}
    for service in services.values():
        image = images.get(service.variant)
        for name in _secret_names(around, service):
            secrets[_secret_key(name, image)] = {"file": _secret_file(around, name, image)}
    networks = {*around.networks, *(name for service in services.values() for name in service.networks)}
    mounts = [mount for service in services.values() for mount in service.volumes if mount.kind == "volume"]
    volumes = {mount.source: {"external": True} if mount.external else {} for mount in mounts}
    parts: dict[str, Any] = {
        "secrets": dict(sorted(secrets.items())),
        "networks": {name: {"external": True} for name in sorted(networks)},
        "volumes": dict(sorted(volumes.items())),
    }
    return {key: part for key, part in parts.items() if part}


def _spec_hash(body: Mapping[str, Any], secret_files: list[str]) -> str:
    canonical = json.dumps([body, secret_files], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
