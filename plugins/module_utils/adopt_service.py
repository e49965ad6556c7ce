# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service of a compose file, as Compose resolved it, said in the words of the fleet spec. Pure.

What doesn't fit is left out here without a word: adopt_changes.py compares what comes of it with the original, so that
nothing is dropped silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Callable, Mapping, Optional, Sequence

from .code_paths import code_paths, covered_code
from .fleet_rules import OWN_ENVIRONMENT
from .fleet_spec import MAX_REPLICAS, PLAIN_NAME, network_names
from .fleet_values import Unfit, cpus, environment, size, size_text
from .fleet_volumes import mount, tmpfs_path
from .names import RESERVED_ENVIRONMENT, SECRETS_MOUNT
from .rollout_order import START_FIRST
from .secret_names import is_secret_name, password_in_url, secret_in_command

REDIS_PASSWORD = "REDIS_PASSWORD"
HIDDEN = "********"
SHORTEST = 4
DEFAULT_DRAIN = 20
DEFAULT_GRACE = 30
DEFAULT_TMPFS = "/tmp"
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001, "µs": 0.000001, "ns": 0.000000001}
_MAX_SECONDS = 86400


@dataclass
class Adopted:
    """A service in the fleet spec's words.

    :param spec: for ``worker_fleet_services``, without defaults.
    :param secrets: name in ``worker_secrets`` → the variable or secret that it was; never its text.
    :param hidden: texts of secrets, for masking; masked: keys of the spec where one had to be.
    """

    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)


def plain(value: Any) -> Any:
    """A document of ``docker compose config`` with each doubled dollar sign as the one that it means."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, dict):
        return {plain(key): plain(content) for key, content in value.items()}
    return [plain(element) for element in value] if isinstance(value, list) else value


def fleet_name(service: str) -> str:
    """A service's name as the fleet spec takes it."""
    return re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", service.lower())).strip("-")


def adopt_service(
    name: str, service: Mapping[str, Any], project: Mapping[str, Any], memory: str, secret_names: Mapping[str, str],
) -> Adopted:
    """Translate a service.

    :param service: plain, of the resolved document; project: that document.
    :param memory: limit for one that has none.
    :param secret_names: variable → name of its secret, where it differs from the variable's in lower case.
    """
    adopted = Adopted(fleet_name(name))
    words = _command(service)
    if words:
        adopted.spec["command"] = words
    _numbers(adopted.spec, service, memory)
    _environment(adopted, service, secret_names)
    _timing(adopted.spec, service)
    _mounts(adopted.spec, service, project)
    _networks(adopted.spec, service, project)
    for secret in service.get("secrets") or []:
        target = str(secret.get("target") or secret.get("source")).rpartition("/")[2]
        if PLAIN_NAME.match(target):
            adopted.secrets[target] = f"secret {secret.get('source')}"
    if adopted.secrets:
        adopted.spec["secrets"] = sorted(adopted.secrets)
    _mask(adopted, service)
    return adopted


def _mask(adopted: Adopted, service: Mapping[str, Any]) -> None:
    """Nothing that is a secret elsewhere stays in a command or a value."""
    adopted.hidden += [text for key in ("command", "entrypoint") if (text := secret_in_command(service.get(key) or []))]
    for key in ("command", "environment", "healthcheck"):
        if key in adopted.spec:
            clear = without(adopted.spec[key], adopted.hidden)
            if clear != adopted.spec[key]:
                adopted.spec[key] = clear
                adopted.masked.append(key)


def without(value: Any, hidden: Sequence[str]) -> Any:
    """A copy in which a row of asterisks stands for each secret; texts too short to be told apart stay."""
    if isinstance(value, dict):
        return {key: without(content, hidden) for key, content in value.items()}
    if isinstance(value, list):
        return [without(element, hidden) for element in value]
    if isinstance(value, str):
        for text in sorted(set(hidden), key=len, reverse=True):
            value = value.replace(text, HIDDEN) if len(text) >= SHORTEST else value
    return value


def _command(service: Mapping[str, Any]) -> list[str]:
    # The image's own entrypoint isn't known here; one that the file sets goes before its command.
    return [str(word) for key in ("entrypoint", "command") for word in service.get(key) or []]


def _fits(reader: Callable[[Any], Any], value: Any) -> bool:
    try:
        reader(value)
    except Unfit:
        return False
    return True


def _numbers(spec: dict[str, Any], service: Mapping[str, Any], memory: str) -> None:
    deploy = service.get("deploy") or {}
    limits, reserved = ((deploy.get("resources") or {}).get(key) or {} for key in ("limits", "reservations"))
    replicas = deploy.get("replicas", service.get("scale"))
    if isinstance(replicas, int) and 1 < replicas <= MAX_REPLICAS:
        spec["replicas"] = replicas
    if (deploy.get("update_config") or {}).get("order") == START_FIRST:
        spec["order"] = START_FIRST
    wanted = limits.get("memory") or service.get("mem_limit") or ""
    spec["memory"] = _size(wanted) or memory
    if _fits(cpus, limits.get("cpus", service.get("cpus"))):
        spec["cpus"] = cpus(limits.get("cpus", service.get("cpus")))
    pids = limits.get("pids") or service.get("pids_limit") or 0
    if isinstance(pids, int) and 1 <= pids <= 100000:
        spec["pids"] = pids
    kept: dict[str, Any] = {}
    held = _size(reserved.get("memory") or service.get("mem_reservation") or "")
    if held and size(held) <= size(spec["memory"]):
        kept["memory"] = held
    if _fits(cpus, reserved.get("cpus")) and cpus(reserved["cpus"]) <= spec.get("cpus", 1024):
        kept["cpus"] = cpus(reserved["cpus"])
    if kept:
        spec["reservations"] = kept


def _size(value: Any) -> str:
    # What people write and read, and to the byte the same.
    return size_text(size(value)).upper().rstrip("B") if _fits(size, value) else ""


def _environment(adopted: Adopted, service: Mapping[str, Any], secret_names: Mapping[str, str]) -> None:
    kept: dict[str, str] = {}
    given = service.get("environment") or {}
    for name, value in given.items():
        if value is None or name in RESERVED_ENVIRONMENT or name in OWN_ENVIRONMENT:
            _own(adopted, name, value)
        elif is_secret_value(name, value):
            adopted.hidden += [value, password_in_url(value)]
            secret = secret_names.get(name, name.lower())
            # The collection hands the password of Redis over itself.
            if name != REDIS_PASSWORD and PLAIN_NAME.match(secret) and _fits(environment, {f"{name}_FILE": ""}):
                adopted.secrets[secret] = name
                if f"{name}_FILE" not in given:
                    kept[f"{name}_FILE"] = f"{SECRETS_MOUNT}/{secret}"
        elif _fits(environment, {name: value}):
            kept[name] = value
    if kept:
        adopted.spec["environment"] = dict(sorted(kept.items()))


def is_secret_value(name: str, value: Optional[str]) -> bool:
    """Whether a variable is to become a secret."""
    if not value:
        return False
    secret = is_secret_name(name) and not value.startswith(f"{SECRETS_MOUNT}/")
    return bool(password_in_url(value)) or (secret and value.lower() not in ("true", "false", "yes", "no", "0", "1"))


def _own(adopted: Adopted, name: str, value: Optional[str]) -> None:
    if name == "WORKER_CONCURRENCY" and value and value.isascii() and value.isdigit() and 1 <= int(value) <= 10000:
        adopted.spec["concurrency"] = int(value)
    if value and password_in_url(value):
        adopted.hidden += [value, password_in_url(value)]


def seconds(value: Any) -> Optional[int]:
    """Whole seconds, rounded up, of a duration as Compose resolves it (``1m30s``, ``500ms``); None for none."""
    parts = _DURATION_PART.findall(str(value or ""))
    if not parts or "".join("".join(part) for part in parts) != str(value):
        return None
    return ceil(round(sum(float(number) * _SECONDS[unit] for number, unit in parts), 6))


def _timing(spec: dict[str, Any], service: Mapping[str, Any]) -> None:
    grace = seconds(service.get("stop_grace_period"))
    if grace is not None and 1 <= grace <= _MAX_SECONDS:
        spec["stop_grace_period"] = f"{grace}s"
    # Time to give jobs back has to be left within it.
    if (grace or DEFAULT_GRACE) <= DEFAULT_DRAIN:
        spec["drain_time"] = f"{max(0, (grace or 0) * 2 // 3)}s"
    health = service.get("healthcheck")
    if health:
        spec["healthcheck"] = _healthcheck(health)
        if spec["healthcheck"] is None:
            del spec["healthcheck"]


def _healthcheck(health: Mapping[str, Any]) -> Any:
    test = [str(word) for word in health.get("test") or []]
    if health.get("disable") or test[:1] == ["NONE"]:
        return False
    found: dict[str, Any] = {}
    if test[:1] == ["CMD-SHELL"]:
        found["test"] = ["sh", "-c", *test[1:]]
    elif test:
        found["test"] = test[1:]
    for key in ("interval", "timeout", "start_period"):
        length = seconds(health.get(key))
        if length is not None and length <= _MAX_SECONDS and (length or key == "start_period"):
            found[key] = f"{length}s"
    retries = health.get("retries")
    if isinstance(retries, int) and 1 <= retries <= 100:
        found["retries"] = retries
    return found or None


def _mounts(spec: dict[str, Any], service: Mapping[str, Any], project: Mapping[str, Any]) -> None:
    environment_ = {name: value for name, value in (service.get("environment") or {}).items() if value}
    code = code_paths(str(service.get("working_dir") or ""), _command(service), environment_)
    places = [str(one).partition(":")[0] for one in service.get("tmpfs") or []]
    volumes = []
    for one in service.get("volumes") or []:
        written = _written(one, project)
        if one.get("type") == "tmpfs":
            places.append(str(one.get("target")))
        elif written and _fits(mount, written) and not covered_code(str(one["target"]), code):
            volumes.append(written)
    if volumes:
        spec["volumes"] = volumes
    taken = [str(one.get("target")) for one in service.get("volumes") or [] if one.get("type") != "tmpfs"]
    wanted = [DEFAULT_TMPFS] if DEFAULT_TMPFS not in taken else []
    wanted += [place for place in places if _fits(tmpfs_path, place) and not covered_code(place, code)]
    if wanted != [DEFAULT_TMPFS]:
        spec["tmpfs"] = list(dict.fromkeys(wanted))


def _written(volume: Mapping[str, Any], project: Mapping[str, Any]) -> str:
    """The short form of a mount, of a named volume by the name that the engine knows; empty for an anonymous one."""
    source, target = str(volume.get("source") or ""), str(volume.get("target") or "")
    if volume.get("type") == "bind":
        return f"{source}:{target}" + (":ro" if volume.get("read_only") else "")
    if volume.get("type") != "volume" or not source:
        return ""
    known = (project.get("volumes") or {}).get(source) or {}
    mode = "ro,external" if volume.get("read_only") else "external"
    return f"{known.get('name', source)}:{target}:{mode}"


def _networks(spec: dict[str, Any], service: Mapping[str, Any], project: Mapping[str, Any]) -> None:
    known = project.get("networks") or {}
    names = [str((known.get(key) or {}).get("name", key)) for key in service.get("networks") or {}]
    fit = sorted(name for name in names if _fits(network_names, [name]))
    if fit:
        spec["networks"] = fit
