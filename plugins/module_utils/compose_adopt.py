# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_compose_adopt does: turns services of a compose file into an inventory of this collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, Mapping

from .adopt_changes import Change, changes, normal
from .adopt_inventory import Inventory, change_list, inventory_files, plan_inventory
from .adopt_service import HIDDEN, Adopted, adopt_service, fleet_name, is_secret_value, plain
from .audit_view import ServiceView
from .compose_project import Project, read_config, workers_of
from .compose_render import REDIS_PASSWORD, Surroundings, render
from .errors import DriftguardError
from .fleet_inventory import plan_fleet
from .fleet_spec import read_services
from .fleet_values import Unfit, shown, size
from .host_files import make_directory, read_text, write_atomic
from .module_base import Result
from .names import FLEET_PATTERN, HOST_ROOT, LABEL_SPEC
from .secret_names import is_secret_name, password_in_url
from .untrusted import clean

_STAND_IN_MARK = "0" * 16
_STAND_IN_SHA = "0" * 40
UNKNOWN = "(unknown to this file)"
LEFT = "no worker by its image: nothing here builds it"
LEFT_OUT = "not among those that were named"


def adopt(options: Mapping[str, Any], check_mode: bool) -> Result:
    """Adopt a compose file and, out of check mode, write the inventory.

    :param options: the module's options.
    :raises DriftguardError: a file can't be read, Compose or the fleet spec refuses it, or a file of the inventory is
        there with another content. Nothing was written.
    """
    project = Project.open(options["files"], options["project_directory"], options["env_files"])
    raw, resolved = project.raw(), plain(project.resolved())
    services = resolved.get("services", {})
    names = workers_of(services, options["services"])
    if not names:
        raise DriftguardError(
            "compose file", "a service that is a worker", f"only {clean(', '.join(sorted(services))) or 'none'}",
            "name the workers under services")
    bodies, values = raw.get("services", {}), project.sources.variables
    written = {name: ServiceView(name, bodies.get(name, {}), True, values, {}) for name in names}
    adopted = _adopted(written, resolved, _memory(options["memory"]))
    plan = plan_inventory(_fleet(options["fleet"], resolved), options["host"], adopted, services)
    plan_fleet(plan.fleet, "workers", {plan.host: None}, plan.services, {}, ["1"], [], False)
    listed = _changes(plan, adopted, services, resolved)
    fixed = [one for view in written.values() for one in _fixed(view)]
    plan.todo += [
        f"{one['key']} of {one['service']} needs {', '.join(one['unset'])}, without a value here: set it in fleet.yml."
        for one in fixed if one["unset"] and one["key"].startswith(("environment", "command", "entrypoint", "volumes"))
        and one["written"] != HIDDEN]
    why = LEFT_OUT if options["services"] else LEFT
    left = dict.fromkeys(sorted(set(services) - set(names)), why)
    files = inventory_files(plan, change_list(plan, listed, fixed, left))
    result = {
        "fleet": plan.fleet, "services": {name: one.name for name, one in adopted.items()}, "left": left,
        "changes": [one.to_dict() for one in listed], "fixed": fixed, "todo": plan.todo,
        "files": sorted(files), "dest": options["dest"]}
    return _written(Path(options["dest"]), files, options["force"], result, check_mode)


def _memory(value: str) -> str:
    try:
        size(value)
    except Unfit as error:
        raise DriftguardError("option memory", str(error), shown(value), "write a size such as 512M") from error
    return value


def _fleet(given: Any, resolved: Mapping[str, Any]) -> str:
    found = str(given or fleet_name(str(resolved.get("name", "")))[:32].strip("-"))
    if not FLEET_PATTERN.match(found):
        raise DriftguardError(
            "option fleet", "2 to 32 lower-case letters, digits and dashes, a letter first, no dash last", shown(found),
            "give the fleet a name")
    return found


def _adopted(written: Mapping[str, ServiceView], project: Mapping[str, Any], memory: str) -> dict[str, Adopted]:
    services = {name: _with_unknown(project["services"][name], view) for name, view in written.items()}
    apart = _named_apart({name: service.get("environment") or {} for name, service in services.items()})
    found = {name: adopt_service(name, one, project, memory, apart[name]) for name, one in services.items()}
    by_name: dict[str, str] = {}
    for name, one in found.items():
        if one.name in by_name:
            raise DriftguardError(
                f"service {clean(name)}", "a name of its own in the fleet", f"{one.name}, as of {by_name[one.name]}",
                "rename one of them in the compose file")
        by_name[one.name] = name
    return found


def _named_apart(environments: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """By service the names of secrets that differ between services: each its own."""
    values: dict[str, set[str]] = {}
    for environment in environments.values():
        for name, value in environment.items():
            if is_secret_value(name, value):
                values.setdefault(name.lower(), set()).add(value)
    return {
        service: {
            name: f"{fleet_name(service).replace('-', '_')}_{name.lower()}" for name in environment
            if len(values.get(name.lower(), ())) > 1}
        for service, environment in environments.items()}


def _with_unknown(service: Mapping[str, Any], view: ServiceView) -> dict[str, Any]:
    """The service with something in place of secrets whose text only the old project's shell had."""
    given = view.pairs("environment")
    environment = {
        name: UNKNOWN if not value and is_secret_name(name) and name in given and (
            given[name] is None or view.expanded(given[name]).unset) else value
        for name, value in (service.get("environment") or {}).items()}
    return {**service, "environment": environment}


def _changes(
    plan: Inventory, adopted: Mapping[str, Adopted], services: Mapping[str, Any], project: Mapping[str, Any],
) -> list[Change]:
    """The original against what the inventory renders, both as Compose reads them."""
    marks = dict.fromkeys([*plan.secrets, *([REDIS_PASSWORD] if plan.redis_password else [])], _STAND_IN_MARK)
    around = Surroundings(
        fleet=plan.fleet, host=plan.host, root=f"{HOST_ROOT}/{plan.fleet}", sha=_STAND_IN_SHA,
        redis_url=plan.redis_url, secret_marks=marks)
    text = render(around, read_services(plan.fleet, plan.services, {}), {}).text
    rendered = plain(read_config(
        ["--project-directory", "/", "--env-file", "/dev/null", "--file", "-"], stdin=text.encode()))
    hidden = sorted({text for one in adopted.values() for text in one.hidden})
    found = []
    for name, one in adopted.items():
        before = normal(services[name], project)
        after = normal(rendered["services"][one.name], rendered)
        _stand_in(after)
        found += changes(name, before, after, hidden)
    return found


def _stand_in(after: dict[str, Any]) -> None:
    """Say what is known only once the image is."""
    after["entrypoint"] = "(the start guard)"
    after["image"] = "(the commit's, by digest)"
    after.setdefault("command", "(the image's)")
    after["environment"]["EXPECTED_GIT_SHA"] = "(the release's commit)"
    after["labels"][LABEL_SPEC] = "(a hash)"


def _fixed(service: ServiceView) -> Iterator[dict[str, Any]]:
    for key, value in _texts("", service.raw):
        variable, sign, text = value.partition("=") if key == "environment" else (key.rpartition(".")[2], "", value)
        expanded = service.expanded(text if sign else value)
        if expanded.used:
            secret = any(map(is_secret_name, (variable, *expanded.used))) or any(
                map(password_in_url, (value, expanded.text)))
            yield {
                "service": service.name, "key": f"{key}.{clean(variable)}" if sign else clean(key),
                "written": HIDDEN if secret else clean(text if sign else value), "unset": list(expanded.unset)}


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, content in value.items():
            yield from _texts(f"{path}.{key}" if path else str(key), content)
    elif isinstance(value, list):
        for element in value:
            yield from _texts(path, element)
    elif isinstance(value, str) and "$" in value:
        yield path, value


def _written(
    dest: Path, files: Mapping[str, str], force: bool, values: dict[str, Any], check_mode: bool,
) -> Result:
    before = {path: read_text(dest / path) for path in files}
    due = [path for path in sorted(files) if before[path] != files[path]]
    taken = [path for path in due if before[path] is not None]
    if taken and not force:
        raise DriftguardError(
            f"inventory {clean(str(dest))}", "no file that would be overwritten",
            f"{', '.join(taken)} with another content",
            "choose another dest, or overwrite what you have changed there with force")
    if not check_mode:
        for path in due:
            if not (dest / path).parent.is_dir():
                make_directory((dest / path).parent, 0o755)
            write_atomic(dest / path, files[path], 0o644)
    return Result(
        bool(due), values, "".join(f"# {path}\n{before[path]}" for path in due if before[path] is not None),
        "".join(f"# {path}\n{files[path]}" for path in due), str(dest))
