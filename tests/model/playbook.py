# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads playbooks and roles as data. What the interpreter doesn't know is an error: nothing leaves the model unseen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Mapping, Optional, Union

import yaml

__all__ = ["PROJECT", "Block", "Entry", "Play", "Role", "Task", "UnknownPlaybook", "plays", "role", "task_file"]

PROJECT = Path(__file__).resolve().parents[2]
COLLECTION = "driftguard.workers."
_PLAY_KEYS = {"name", "hosts", "gather_facts", "become", "ignore_unreachable", "tasks", "import_playbook", "vars",
    "strategy"}
_KEYWORDS = {
    "name", "when", "vars", "register", "loop", "loop_control", "delegate_to", "become", "changed_when", "failed_when",
    "run_once", "check_mode", "diff", "ignore_unreachable", "no_log",
}
_BLOCK = {"block", "rescue", "always"}
_BLOCK_KEYS = _BLOCK | {"name", "when", "vars", "become", "check_mode", "delegate_to", "ignore_unreachable"}
_ROLE_PARTS = {"defaults", "vars", "meta", "tasks"}


class UnknownPlaybook(AssertionError):
    """Something in a playbook or role that the interpreter doesn't know. Teach it, or the model says nothing."""


@dataclass(frozen=True, eq=False)
class Task:
    """One task: its action, the action's arguments, and its keywords."""

    name: str
    where: str
    action: str
    arguments: Any
    keywords: Mapping[str, Any]

    @property
    def when(self) -> tuple[Any, ...]:
        """Its own conditions."""
        return _conditions(self.keywords.get("when"))

    def conditions(self, keyword: str) -> tuple[Any, ...]:
        """Conditions under another keyword."""
        return _conditions(self.keywords.get(keyword))


@dataclass(frozen=True, eq=False)
class Block:
    """A block with what rescues it."""

    name: str
    where: str
    block: tuple[Entry, ...]
    rescue: tuple[Entry, ...]
    always: tuple[Entry, ...]
    keywords: Mapping[str, Any]

    @property
    def when(self) -> tuple[Any, ...]:
        """Conditions of each of its tasks, also of those that rescue."""
        return _conditions(self.keywords.get("when"))


Entry = Union[Task, Block]


@dataclass(frozen=True, eq=False)
class Role:
    """A role's variables and where its tasks are."""

    name: str
    path: Path
    defaults: Mapping[str, Any]
    variables: Mapping[str, Any]
    parent: Optional[Role] = None


@dataclass(frozen=True)
class Play:
    """One play."""

    name: str
    hosts: str
    ignore_unreachable: bool
    tasks: tuple[Entry, ...]
    variables: Mapping[str, Any] = field(default_factory=dict)


def plays(path: Path, variables: Mapping[str, Any] | None = None) -> list[Play]:
    """The plays of a playbook, those of the playbooks it imports in their places.

    :param variables: of the import, for all plays.
    """
    given, found = dict(variables or {}), []
    for raw in _yaml(path):
        unknown = set(raw) - _PLAY_KEYS - {"ansible.builtin.import_playbook"}
        if unknown or raw.get("gather_facts") not in (False, None):
            raise UnknownPlaybook(f"{path.name}: {sorted(unknown) or 'gather_facts'}")
        own = {**given, **raw.get("vars", {})}
        imported = raw.get("ansible.builtin.import_playbook")
        if imported:
            found += plays(path.parent / imported, own)
        else:
            found.append(Play(
                raw.get("name", ""), str(raw["hosts"]), bool(raw.get("ignore_unreachable", False)),
                _entries(raw["tasks"], path), own))
    return found


def role(name: str, parent: Optional[Role] = None) -> Role:
    """A role of the collection."""
    if not name.startswith(COLLECTION):
        raise UnknownPlaybook(f"role {name}")
    return _role(name.removeprefix(COLLECTION), parent)


@lru_cache(maxsize=None)
def _role(name: str, parent: Optional[Role]) -> Role:
    path = PROJECT / "roles" / name
    files = {part: path / part / "main.yml" for part in _ROLE_PARTS}
    odd = {entry.name for entry in path.iterdir()} - _ROLE_PARTS - {"README.md"}
    meta = _yaml(files["meta"])
    if odd or meta.get("dependencies") or (parent and parent.parent):
        raise UnknownPlaybook(f"role {name}: {sorted(odd) or 'dependencies, or a third level'}")
    parts = [_yaml(files[part]) if files[part].exists() else {} for part in ("defaults", "vars")]
    return Role(name, path, parts[0], parts[1], parent)


@lru_cache(maxsize=None)
def task_file(path: Path) -> tuple[Entry, ...]:
    """The entries of a task file; what it imports is in its place."""
    return _entries(_yaml(path), path)


@lru_cache(maxsize=None)
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _yaml(path: Path) -> Any:
    return yaml.load(_text(path), Loader=yaml.CSafeLoader) or {}


def _entries(raw: Any, path: Path) -> tuple[Entry, ...]:
    found: list[Entry] = []
    for entry in raw:
        if "ansible.builtin.import_tasks" in entry:
            if set(entry) - {"name", "vars", "ansible.builtin.import_tasks"}:
                raise UnknownPlaybook(f"{path.name}: import_tasks with {sorted(entry)}")
            inner = task_file(path.parent / entry["ansible.builtin.import_tasks"])
            where = f"{path.parent.parent.name}/{path.name}"
            found.append(Block(entry.get("name", ""), where, inner, (), (), {"vars": entry.get("vars", {})}))
        else:
            found.append(_block(entry, path) if "block" in entry else _task(entry, path))
    return tuple(found)


def _block(raw: Mapping[str, Any], path: Path) -> Block:
    if set(raw) - _BLOCK_KEYS:
        raise UnknownPlaybook(f"{path.name}, block {raw.get('name')}: {sorted(set(raw) - _BLOCK_KEYS)}")
    parts = [_entries(raw.get(part, ()), path) for part in ("block", "rescue", "always")]
    keywords = {key: value for key, value in raw.items() if key not in _BLOCK}
    return Block(raw.get("name", ""), f"{path.parent.parent.name}/{path.name}", parts[0], parts[1], parts[2], keywords)


def _task(raw: Mapping[str, Any], path: Path) -> Task:
    actions = [key for key in raw if "." in key]
    unknown = set(raw) - _KEYWORDS - set(actions)
    if len(actions) != 1 or unknown:
        raise UnknownPlaybook(f"{path.name}, task {raw.get('name')}: {sorted(unknown) or actions}")
    keywords = {key: value for key, value in raw.items() if key in _KEYWORDS}
    where = f"{path.parent.parent.name}/{path.name}"
    return Task(raw.get("name", ""), where, actions[0], raw[actions[0]], keywords)


def _conditions(raw: Any) -> tuple[Any, ...]:
    if raw is None:
        return ()
    return tuple(raw) if isinstance(raw, list) else (raw,)
