# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What adopting a compose file changes, service by service: Compose's reading of the original compared with its reading
of what this collection renders. Pure.

Since both sides are compared whole, a key that nobody thought of is in the list too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Iterator, Mapping, Optional, Sequence

from .adopt_reasons import reason
from .adopt_service import HIDDEN, without
from .names import SECRETS_MOUNT
from .rollout_order import STOP_FIRST
from .secret_names import is_secret_name, password_in_url
from .untrusted import clean

FROM_SHELL = "(the shell's)"
# What Compose writes in one place or the other, by the place that the renderer uses.
_SYNONYMS = {
    "mem_limit": ("limits", "memory"), "cpus": ("limits", "cpus"), "pids_limit": ("limits", "pids"),
    "mem_reservation": ("reservations", "memory")}
_SETS = ("cap_add", "cap_drop", "security_opt", "profiles", "group_add", "dns", "extra_hosts", "devices")
# Of these each element is a change of its own, also when one side has none at all.
_OPEN = (
    "", "environment", "networks", "volumes", "secrets", "configs", "labels", "tmpfs", "depends_on", "deploy",
    "deploy.resources", "deploy.resources.limits", "deploy.resources.reservations", "healthcheck")


@dataclass(frozen=True)
class Change:
    """One difference of one service; before and after are JSON, None for nothing there."""

    service: str
    key: str
    kind: str
    before: Optional[str]
    after: Optional[str]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def changes(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any], hidden: Sequence[str],
) -> list[Change]:
    """Everything that differs between two services.

    :param before: normal, see :func:`normal`; likewise after.
    :param hidden: texts that must not show.
    """
    found = []
    for key, was, is_now in _differences("", before, after):
        kind, why = reason(key, was, is_now)
        found.append(Change(name, clean(key), kind, shown(key, was, hidden), shown(key, is_now, hidden), why))
    return sorted(found, key=lambda one: one.key)


def normal(service: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved service in one form: lists that mean sets or names as such, networks and volumes by the names that the
    engine knows, limits in one place, nothing empty."""
    body = dict(service)
    networks, volumes = project.get("networks") or {}, project.get("volumes") or {}
    body["networks"] = {
        str((networks.get(key) or {}).get("name", key)): value or True
        for key, value in (body.get("networks") or {}).items()}
    mounts = body.get("volumes") or []
    body["volumes"] = {str(one.get("target")): _volume(one, volumes) for one in mounts if one.get("type") != "tmpfs"}
    body["tmpfs"] = {str(one).partition(":")[0]: str(one).partition(":")[2] or True for one in body.get("tmpfs") or []}
    # Two ways to say the same.
    body["tmpfs"].update({
        str(one.get("target")): one.get("tmpfs") or True for one in mounts if one.get("type") == "tmpfs"})
    body["secrets"] = {_secret_target(one): _without(one, "source", "target") or True
                       for one in body.get("secrets") or []}
    body["configs"] = {str(one.get("target") or one.get("source")): one for one in body.get("configs") or []}
    body["environment"] = {
        name: FROM_SHELL if value is None else {"value": value}
        for name, value in (body.get("environment") or {}).items()}
    for key in _SETS:
        if isinstance(body.get(key), list):
            body[key] = sorted(body[key], key=str)
    body["deploy"] = _deploy(body)
    for key in (*_SYNONYMS, "scale"):
        body.pop(key, None)
    return {key: value for key, value in _full(body).items() if value is not None}


def _without(value: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: content for key, content in value.items() if key not in keys}


def _volume(volume: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    source: Any = volume.get("source")
    if volume.get("type") == "volume":
        source = (known.get(source) or {}).get("name", source)
    return {**_without(volume, "target"), "source": source}


def _secret_target(secret: Mapping[str, Any]) -> str:
    target = str(secret.get("target") or secret.get("source"))
    return target if target.startswith("/") else f"{SECRETS_MOUNT}/{target}"


def _deploy(body: Mapping[str, Any]) -> dict[str, Any]:
    deploy = dict(body.get("deploy") or {})
    resources = {kind: dict((deploy.get("resources") or {}).get(kind) or {}) for kind in ("limits", "reservations")}
    for key, (kind, name) in _SYNONYMS.items():
        if body.get(key) is not None:
            resources[kind].setdefault(name, body[key])
    deploy["resources"] = {
        kind: {name: value if isinstance(value, list) else _number(value) for name, value in values.items()}
        for kind, values in resources.items()}
    deploy.setdefault("replicas", body.get("scale", 1))
    update = deploy.get("update_config") or {}
    if update.get("order") == STOP_FIRST:  # the default of both sides
        deploy["update_config"] = _without(update, "order")
    return deploy


def _number(value: Any) -> Any:
    number = float(value)
    return int(number) if number == int(number) else number


def _full(value: Any) -> Any:
    """The value without what is empty; an empty text in an environment stays, since it is wrapped there."""
    if isinstance(value, dict):
        if set(value) == {"value"}:
            return value["value"]
        found = {str(key): _full(content) for key, content in value.items()}
        return {key: content for key, content in found.items() if content is not None} or None
    return None if value in ("", []) else value


def _differences(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    was, is_now = ({} if value is None and path in _OPEN else value for value in (before, after))
    if isinstance(was, dict) and isinstance(is_now, dict):
        for key in {**was, **is_now}:
            yield from _differences(f"{path}.{key}" if path else str(key), was.get(key), is_now.get(key))
    elif was != is_now:
        yield path, was, is_now


def shown(key: str, value: Any, hidden: Sequence[str]) -> Optional[str]:
    """A value as JSON that shows no secret, None for None."""
    if value is None:
        return None
    written = json.dumps(_redacted(key.rpartition(".")[2], value), ensure_ascii=False)
    forms = {form for text in hidden for form in (text, json.dumps(text, ensure_ascii=False)[1:-1])}
    return clean(str(without(written, sorted(forms))))


def _redacted(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(key, content) for key, content in value.items()}
    if isinstance(value, list):
        return [_redacted(name, element) for element in value]
    if isinstance(value, str) and (is_secret_name(name) or password_in_url(value)):
        return HIDDEN
    return value
