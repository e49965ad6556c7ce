# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an inventory that an adopted compose file becomes. Pure but for a look at the Dockerfile."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from .adopt_changes import Change
from .adopt_service import HIDDEN, Adopted, is_secret_value
from .compose_project import repository
from .compose_yaml import Unsafe, to_yaml
from .dev_runners import find_runner
from .errors import DriftguardError
from .names import RESERVED_ENVIRONMENT
from .redis_url import parse_redis_url, passwords_in
from .secret_names import is_secret_name

REDIS_GUESS = "redis://redis:6379/0"
BASE_ARGUMENT = "BASE_IMAGE"
_HEAD = "# Adopted from a compose file; ADOPTED.md says what changed. docs/inventory.md explains every key.\n"
_TAKES_BASE = re.compile(rf"^\s*ARG\s+{BASE_ARGUMENT}\b", re.IGNORECASE | re.MULTILINE)


@dataclass
class Inventory:
    """An inventory in the making.

    :param todo: what a person has to see to before the first deploy.
    """

    fleet: str
    host: str
    services: dict[str, dict[str, Any]]
    secrets: dict[str, str] = field(default_factory=dict)
    redis_url: str = REDIS_GUESS
    redis_password: bool = False
    images: dict[str, Any] = field(default_factory=dict)
    todo: list[str] = field(default_factory=list)


def plan_inventory(fleet: str, host: str, adopted: Mapping[str, Adopted], services: Mapping[str, Any]) -> Inventory:
    """Put adopted services together.

    :param adopted: name in the compose file → service; services: the same, as Compose resolved them, plain.
    """
    plan = Inventory(fleet, host, {one.name: one.spec for one in adopted.values()})
    for one in adopted.values():
        plan.secrets.update(one.secrets)
    _redis(plan, [services[name].get("environment") or {} for name in adopted])
    _images(plan, adopted, services)
    _todo(plan, adopted, services)
    return plan


def _redis(plan: Inventory, environments: Sequence[Mapping[str, Any]]) -> None:
    urls = [str(one["REDIS_URL"]) for one in environments if one.get("REDIS_URL")]
    plan.redis_password = any(is_secret_value("REDIS_PASSWORD", one.get("REDIS_PASSWORD")) for one in environments)
    for url in urls:
        try:
            parse_redis_url(url)
        except DriftguardError:
            continue
        plan.redis_password = plan.redis_password or bool(passwords_in(url))
        scheme, _sign, rest = url.partition("://")
        user, at, place = rest.rpartition("@")
        name = user.partition(":")[0]
        plan.redis_url = f"{scheme}://{name}{at if name else ''}{place}"
        break
    else:
        plan.todo.append(
            f"worker_redis_url in redis.yml is a GUESS ({REDIS_GUESS}): no service has a usable REDIS_URL.")
    if len(set(urls)) > 1:
        plan.todo.append("The services have several REDIS_URLs; a fleet has one. See redis.yml.")


def _images(plan: Inventory, adopted: Mapping[str, Adopted], services: Mapping[str, Any]) -> None:
    builds = {name: services[name]["build"] for name in adopted if services[name].get("build")}
    if not builds:
        plan.todo.append("Nothing is built in the compose file: say in images.yml where the images are built from.")
        plan.images = {"worker_image_variants": {"base": {}}}
        return
    first = next(iter(builds.values()))
    context, dockerfile = str(first.get("context") or "."), str(first.get("dockerfile") or "Dockerfile")
    plan.images["worker_source"] = {
        "path": context, "revision": "HEAD", "context": ".", "dockerfile": _below(context, dockerfile)}
    others = sorted(name for name, one in builds.items() if (one.get("context"), one.get("dockerfile")) != (
        first.get("context"), first.get("dockerfile")))
    if others:
        plan.todo.append(
            f"NOT CARRIED OVER: {', '.join(others)} are built from another directory or Dockerfile; a fleet has one "
            "worker_source. Make them stages of one Dockerfile (target of a variant), or a fleet of their own.")
    _base(plan, Path(context) / dockerfile)
    _variants(plan, adopted, services, builds)


def _below(context: str, dockerfile: str) -> str:
    try:
        return str(Path(dockerfile).relative_to(context))
    except ValueError:
        return dockerfile


def _base(plan: Inventory, dockerfile: Path) -> None:
    try:
        text = dockerfile.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    if _TAKES_BASE.search(text):
        plan.todo.append("Set worker_image_base in images.yml: the base image by digest, for ARG BASE_IMAGE.")
        return
    plan.images["worker_image_base_arg"] = ""
    plan.todo.append(
        "Each FROM of the Dockerfile has to name its image by digest; or take it as ARG BASE_IMAGE, with "
        "worker_image_base in images.yml.")


def _variants(
    plan: Inventory, adopted: Mapping[str, Adopted], services: Mapping[str, Any], builds: Mapping[str, Any],
) -> None:
    variants: dict[str, dict[str, Any]] = {}
    by_image: dict[str, str] = {}
    for name, build in builds.items():
        wanted = _variant(build, plan)
        label = next((key for key, one in variants.items() if one == wanted), None)
        if label is None:
            label = _label(adopted[name].name, variants) if variants else "base"
            variants[label] = wanted
        _name_variant(plan, adopted[name], label)
        by_image.setdefault(repository(str(services[name].get("image") or "")), label)
    for name in adopted:
        if name not in builds:
            _name_variant(plan, adopted[name], by_image.get(repository(str(services[name].get("image") or "")), "base"))
    plan.images["worker_image_variants"] = variants


def _variant(build: Mapping[str, Any], plan: Inventory) -> dict[str, Any]:
    given = build.get("args") or {}
    secrets = sorted(name for name in given if is_secret_name(name))
    if secrets:
        plan.todo.append(
            f"NOT CARRIED OVER: build arguments {', '.join(secrets)} hold secrets, which stay in an image's history; "
            "use worker_image_secrets.")
    kept = {
        name: Unsafe(value) for name, value in sorted(given.items())
        if name not in (*RESERVED_ENVIRONMENT, *secrets) and value is not None}
    found: dict[str, Any] = {"build_args": kept} if kept else {}
    if build.get("target"):
        found["target"] = str(build["target"])
    return found


def _label(service: str, taken: Iterable[str]) -> str:
    plain = re.sub(r"[^a-z0-9]", "", service)[:18]
    names = [plain, *(f"{plain}{number}" for number in range(2, 100))]
    return next(name for name in names if name not in taken)


def _name_variant(plan: Inventory, service: Adopted, label: str) -> None:
    if label != "base":
        plan.services[service.name] = {"variant": label, **plan.services[service.name]}


def _todo(plan: Inventory, adopted: Mapping[str, Adopted], services: Mapping[str, Any]) -> None:
    vault = [f"vault_{_variable(name)}" for name in sorted(plan.secrets)]
    vault += ["vault_redis_password"] if plan.redis_password else []
    if vault:
        plan.todo.append(
            f"Create group_vars/workers/vault.yml (ansible-vault create) with {', '.join(vault)}, each of at least "
            "eight characters. Take the old values out of the compose file and its history, and change them.")
    _commands_todo(plan, adopted)
    unlimited = [
        adopted[name].name for name in adopted if not services[name].get("mem_limit")
        and not ((services[name].get("deploy") or {}).get("resources") or {}).get("limits", {}).get("memory")]
    if unlimited:
        plan.todo.append(f"Memory limits of {', '.join(sorted(unlimited))} are a GUESS: measure and set them.")
    if any(one.spec.get("volumes") or one.spec.get("networks") for one in adopted.values()):
        plan.todo.append(
            "Networks and named volumes are those that the compose file made on its host: keep it there for the "
            "services that stay in it, or create them by hand on other hosts.")
    plan.todo.append(
        "Stop the adopted services in the old project before the first deploy, and remove them from its file: "
        f"docker compose rm --stop {' '.join(sorted(adopted))}. Else old workers go on taking jobs.")
    plan.todo.append("Workers have to register and to end on SIGTERM: README, Your own application.")


def _commands_todo(plan: Inventory, adopted: Mapping[str, Adopted]) -> None:
    for one in adopted.values():
        if one.masked:
            plan.todo.append(
                f"NOT CARRIED OVER: a secret in {', '.join(one.masked)} of {one.name}, where {HIDDEN} stands now: let "
                "the worker read it from a file in /run/secrets.")
        runner = find_runner(one.spec.get("command", ()))
        if runner:
            plan.todo.append(
                f"The command of {one.name} starts {runner}, a development runner, and is REFUSED as it is: name the "
                "built program in fleet.yml.")


def _variable(name: str) -> str:
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def inventory_files(plan: Inventory, listed: str) -> dict[str, str]:
    """Path within the inventory → content.

    :param listed: the list of changes.
    """
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    hosts = {"all": {"children": {"workers": {"hosts": {plan.host: local if plan.host == "localhost" else {}}}}}}
    redis: dict[str, Any] = {"worker_redis_url": plan.redis_url}
    if plan.redis_password:
        redis["worker_redis_password"] = "{{ vault_redis_password }}"
    files = {
        "hosts.yml": hosts,
        "group_vars/workers/fleet.yml": {
            "worker_fleet": plan.fleet, "worker_fleet_services": _guarded(plan.services)},
        "group_vars/workers/images.yml": _guarded(plan.images),
        "group_vars/workers/redis.yml": redis,
    }
    if plan.secrets:
        files["group_vars/workers/secrets.yml"] = {
            "worker_secrets": {name: "{{ vault_%s }}" % _variable(name) for name in sorted(plan.secrets)}}
    return {**{path: f"---\n{_HEAD}{to_yaml(content)}" for path, content in files.items()}, "ADOPTED.md": listed}


def _guarded(value: Any) -> Any:
    """A copy whose texts Ansible takes as they are, whatever braces are in them."""
    if isinstance(value, dict):
        return {key: _guarded(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_guarded(element) for element in value]
    if isinstance(value, str):
        return Unsafe(value) if "{" in value else str(value)
    return value


def change_list(
    plan: Inventory, changes: Sequence[Change], fixed: Sequence[Mapping[str, Any]], left: Mapping[str, str],
) -> str:
    """The list of changes as Markdown."""
    lines = [f"# Adopted as fleet {plan.fleet}", "", "## Before the first deploy", ""]
    lines += [f"- {one}" for one in plan.todo]
    lines += ["", "## What stays in the compose file", ""]
    lines += [f"- `{name}`: {why}" for name, why in sorted(left.items())] or ["Nothing."]
    for service in sorted({one.service for one in changes}):
        lines += ["", f"## {service}", "", "| key | | before | after | why |", "|---|---|---|---|---|"]
        lines += [_row(one) for one in changes if one.service == service]
        own = [one for one in fixed if one["service"] == service]
        if own:
            lines += ["", "Variables of the compose file that have a fixed value now:", ""]
            lines += [f"- `{_cell(one['key'])}`, was {_code(one['written'])}{_unset(one)}" for one in own]
    return "\n".join(lines) + "\n"


def _unset(one: Mapping[str, Any]) -> str:
    return f"; **without a value here: {', '.join(one['unset'])}**" if one["unset"] else ""


def _row(one: Change) -> str:
    cells = [_code(one.key), one.kind, _code(one.before), _code(one.after), _cell(one.reason)]
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def _code(text: Any) -> str:
    return f"`{_cell(text)}`" if text else ""
