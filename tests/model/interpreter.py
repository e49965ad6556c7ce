# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs plays as ansible-core's linear strategy does: task by task, each on all hosts before the next.

Held to what core 2.19 does where it matters here:

- a dynamic include hands its variables down, above facts, and none of its conditions; a block hands down both, also to
  the tasks that rescue it;
- a result is skipped, failed, unreachable or fine, and is registered in each case; with ignore_unreachable, unreachable
  counts as fine, and rescues nothing;
- ``hostvars`` has inventory and facts of a host, no variables of roles or plays;
- what run_once finds out, all hosts of the play know; where it fails, all fail that were to run it;
- a host that failed, or is unreachable without ignore_unreachable, is in no later play;
- workers run at the same time: whether a host sees the facts that the same task set on a host before it, and whose
  answer comes first, is chance. Included files run in the order in which the answers came.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional, Protocol

from model.actions import ACTIONS, INCLUDES, LOCALHOST, Result, module
from model.playbook import Block, Entry, Play, Role, Task, UnknownPlaybook, role, task_file
from model.templates import OMIT, Layers, Scope, TaskFailure, Undefined

__all__ = ["Chance", "Ending", "Frame", "Inventory", "Run", "World"]


class World(Protocol):
    """What a run acts upon."""

    def step(self, run: Run, host: str, task: Task) -> None:
        """Called before each task of each host."""

    def reaches(self, run: Run, host: str) -> bool:
        """Whether a connection to a host can be had."""

    def module(self, run: Run, host: str, name: str, arguments: Result, check_mode: bool) -> Result:
        """Run a module; ``host`` is where it runs, localhost included."""

    def functions(self) -> Mapping[str, Any]:
        """What expressions may call: lookup, now."""


@dataclass(frozen=True)
class Inventory:
    """Hosts of the fleet's group in order, with their variables."""

    hosts: Mapping[str, Mapping[str, Any]]
    group: str = "workers"


@dataclass(frozen=True)
class Chance:
    """What is left to chance in a run of several workers.

    :param late: a task's facts are seen only once it is through on all hosts; else by the hosts after.
    :param backwards: the last host's answers come first.
    """

    late: bool = True
    backwards: bool = False


@dataclass(frozen=True)
class Ending:
    """How a run ended, and what it did on the way."""

    status: int
    changed: int
    steps: int
    facts: Mapping[str, Mapping[str, Any]]
    said: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
    """What a task inherits."""

    play: Play
    role: Optional[Role] = None
    params: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    when: tuple[Any, ...] = ()
    check_mode: Any = None
    delegate_to: Any = None
    ignore_unreachable: Any = None
    rescued: bool = False

    def inherit(self, keywords: Mapping[str, Any], when: tuple[Any, ...]) -> Frame:
        """Inside a block or task, or below an include's ``apply``."""
        own = {
            key: keywords[key] for key in ("check_mode", "delegate_to", "ignore_unreachable") if key in keywords}
        return replace(
            self, variables={**self.variables, **keywords.get("vars", {})}, when=(*self.when, *when), **own)


class _HostVars(Mapping[str, Any]):
    def __init__(self, run: Run) -> None:
        self._run = run
        self._views: dict[str, _HostView] = {}

    def __getitem__(self, host: str) -> Any:
        if host not in self._run.inventory.hosts:
            return Undefined(f"hostvars[{host!r}]")
        if host not in self._views:
            self._views[host] = _HostView(self._run.scope_of_host(host))
        return self._views[host]

    def __iter__(self) -> Iterator[str]:
        return iter(self._run.inventory.hosts)

    def __len__(self) -> int:
        return len(self._run.inventory.hosts)


class _HostView(Mapping[str, Any]):
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __getitem__(self, name: str) -> Any:
        if not self._scope.has(name):
            raise KeyError(name)
        return self._scope.get(name)

    def __iter__(self) -> Iterator[str]:
        raise UnknownPlaybook("a list of all variables of a host")

    def __len__(self) -> int:
        raise UnknownPlaybook("the number of variables of a host")


@dataclass(eq=False)
class Run:
    """One run of a playbook.

    :param extra: variables of the command line.
    :param limit: hosts that the run is limited to, none for all.
    """

    world: World
    inventory: Inventory
    extra: Mapping[str, Any]
    check_mode: bool = False
    limit: Optional[tuple[str, ...]] = None
    chance: Chance = field(default_factory=Chance)
    name: str = "run"
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    steps: int = 0
    changed: int = 0

    def __post_init__(self) -> None:
        self.facts = {host: {} for host in self.inventory.hosts}
        self._gone: set[str] = set()
        self._failed: set[str] = set()
        self._unreachable: set[str] = set()
        self._play_hosts: tuple[str, ...] = ()
        self._failures: dict[str, tuple[Task, Result]] = {}

    def playbook(self, found: list[Play]) -> Ending:
        """Run plays to their end."""
        for play in found:
            hosts = self._hosts_of(play)
            left = [host for host in hosts if host not in self._gone]
            self._play_hosts = tuple(hosts)
            if hosts and not left:
                break
            if left:
                frame = Frame(play, ignore_unreachable=play.ignore_unreachable)
                self._entries(play.tasks, frame, left)
        status = 4 if self._unreachable else 2 if self._failed else 0
        return Ending(status, self.changed, self.steps, self.facts, tuple(self.said))

    # hosts and variables

    def _hosts_of(self, play: Play) -> list[str]:
        pattern = Scope(((self.extra, False), (play.variables, True)), {}).template(play.hosts)
        if pattern not in (self.inventory.group, "all:localhost"):
            raise UnknownPlaybook(f"hosts: {pattern}")
        hosts = [host for host in self.inventory.hosts if self.limit is None or host in self.limit]
        return hosts or ([LOCALHOST] if pattern != self.inventory.group and self.limit is None else [])

    def scope_of_host(self, host: str) -> Scope:
        """As ``hostvars`` shows a host."""
        layers: Layers = (
            (self.extra, False), ({**self._magic(host), "hostvars": Undefined("hostvars")}, False),
            (self.facts.get(host, {}), False), (self.inventory.hosts.get(host, {}), True))
        return Scope(layers, self.world.functions())

    def _magic(self, host: str) -> dict[str, Any]:
        return {
            "inventory_hostname": host, "groups": {self.inventory.group: list(self.inventory.hosts)},
            "ansible_check_mode": self.check_mode, "omit": OMIT, "ansible_play_hosts_all": list(self._play_hosts),
            "ansible_play_hosts": [one for one in self._play_hosts if one not in self._gone],
        }

    def _scope(self, host: str, frame: Frame) -> Scope:
        magic = self._magic(host)
        magic["hostvars"] = _HostVars(self)
        own, parent = frame.role, frame.role.parent if frame.role else None
        if own:
            magic["role_path"] = str(own.path)
        layers = (
            (magic, False), (self.extra, False), (frame.params, True), (self.facts.get(host, {}), False),
            (frame.variables, True), (own.variables if own else {}, True), (parent.variables if parent else {}, True),
            (frame.play.variables, True), (self.inventory.hosts.get(host, {}), True),
            (own.defaults if own else {}, True), (parent.defaults if parent else {}, True))
        return Scope(layers, self.world.functions())

    # entries, each on all hosts

    def _entries(self, entries: tuple[Entry, ...], frame: Frame, hosts: list[str]) -> None:
        for entry in entries:
            left = [host for host in hosts if host not in self._gone and host not in self._failures]
            if not left:
                return
            if isinstance(entry, Block):
                self._block(entry, frame, left)
            else:
                self._task(entry, frame, left)

    def _block(self, block: Block, frame: Frame, hosts: list[str]) -> None:
        inner = frame.inherit(block.keywords, block.when)
        self._entries(block.block, replace(inner, rescued=bool(block.rescue) or frame.rescued), hosts)
        failed = [host for host in hosts if host in self._failures]
        if failed and block.rescue:
            for host in failed:
                task, result = self._failures.pop(host)
                self.facts[host].update(ansible_failed_task={"name": task.name}, ansible_failed_result=result)
                self._failed.discard(host)
            self._entries(block.rescue, inner, failed)
        if block.always:
            raise UnknownPlaybook(f"{block.where}, block {block.name}: always")
        self._bury(frame, hosts)

    def _bury(self, frame: Frame, hosts: list[str]) -> None:
        """A failure that no block above can rescue ends the host's part in the run."""
        if not frame.rescued:
            for host in hosts:
                if host in self._failures:
                    self._failures.pop(host)
                    self._gone.add(host)
                    self._failed.add(host)

    def _task(self, task: Task, frame: Frame, hosts: list[str]) -> None:
        once = task.keywords.get("run_once", False)
        if once not in (True, False):
            raise UnknownPlaybook(f"{task.where}, task {task.name}: run_once {once}")
        order = hosts[:1] if once else list(reversed(hosts)) if self.chance.backwards else hosts
        action = ACTIONS.get(task.action)
        if action is None and not task.action.startswith("driftguard.workers."):
            raise UnknownPlaybook(f"{task.where}, task {task.name}: action {task.action}")
        if task.action in INCLUDES:
            self._include(task, frame, order)
            self._bury(frame, hosts)
            return
        late: list[Callable[[], None]] = []
        for host in order:
            self._count(host, task)
            apply = self._one(task, frame.inherit(task.keywords, task.when), host, action or module, hosts, once)
            if self.chance.late:
                late.append(apply)
            else:
                apply()
        for apply in late:
            apply()
        self._bury(frame, hosts)

    def _count(self, host: str, task: Task) -> None:
        self.steps += 1
        self.world.step(self, host, task)

    def _one(
        self, task: Task, frame: Frame, host: str, action: Callable[..., Result], hosts: list[str], once: bool,
    ) -> Callable[[], None]:
        """Carry out a task on one host; returns what makes its outcome known."""
        if "loop" in task.keywords:
            raise UnknownPlaybook(f"{task.where}, task {task.name}: loop")
        scope = self._scope(host, frame)
        new: dict[str, Any] = {}
        try:
            if scope.holds(frame.when):
                result = {"changed": False, "failed": False, **action(self, task, frame, host, scope, new)}
                self._judge(task, frame, host, result)
            else:
                result = {"changed": False, "skipped": True, "skip_reason": "Conditional result was False"}
        except TaskFailure as error:
            result = {"failed": True, "changed": False, "msg": f"Task failed: {error}"}
        return lambda: self._known(task, frame, host, result, new, hosts if once else [])

    def _judge(self, task: Task, frame: Frame, host: str, result: Result) -> None:
        if result.get("unreachable"):
            result.pop("failed")  # neither changed_when nor failed_when is asked
            return
        registered = task.keywords.get("register")
        seen = replace(frame, params={**frame.params, registered: result}) if registered else frame
        for keyword, key in (("changed_when", "changed"), ("failed_when", "failed")):
            if keyword in task.keywords:
                result[key] = self._scope(host, seen).holds(task.conditions(keyword))

    def _known(
        self, task: Task, frame: Frame, host: str, result: Result, new: Mapping[str, Any], hosts: Collection[str] = (),
    ) -> None:
        """Let an outcome be known; of a task with run_once all hosts have it, and who was to run it fails with it."""
        for other in [one for one in self._play_hosts if hosts and one != host and one not in self._gone]:
            if not result.get("failed"):
                self.facts[other].update({**new, **{name: result for name in [task.keywords.get("register")] if name}})
            elif other in hosts:
                self._failures[other] = (task, result)
        if "register" in task.keywords:
            self.facts[host][task.keywords["register"]] = result
        if result.get("failed"):
            self._failures[host] = (task, result)
            self.said.append(f"{host}: {task.name}: {result.get('msg')}")
            return
        if result.get("unreachable") and not frame.ignore_unreachable:
            self._gone.add(host)
            self._unreachable.add(host)
            return
        self.facts[host].update(new)
        self.changed += bool(result.get("changed"))

    # includes

    def _include(self, task: Task, frame: Frame, order: list[str]) -> None:
        """Ask every host what it includes; what is included then runs in the order in which it was first asked for."""
        own = frame.inherit(task.keywords, task.when)
        own = replace(own, params={**own.params, **task.keywords.get("vars", {})})
        asked: list[tuple[Any, dict[str, Any], list[str]]] = []
        for host in order:
            self._count(host, task)
            for item in self._items(task, own, host):
                for known, _variables, hosts in asked:
                    if known == item and host not in hosts:
                        hosts.append(host)
                        break
                else:
                    asked.append((item, self._loop_variable(task, item), [host]))
        for _item, variables, hosts in asked:
            self._included(task, frame, variables, [host for host in self._play_hosts if host in hosts])

    def _items(self, task: Task, frame: Frame, host: str) -> list[Any]:
        """The items for which a host includes; one that is None without a loop."""
        try:
            if "loop" not in task.keywords:
                return [None] if self._scope(host, frame).holds(frame.when) else []
            items = self._scope(host, frame).template(task.keywords["loop"])
            frames = [
                (item, replace(frame, params={**frame.params, **self._loop_variable(task, item)})) for item in items]
            return [item for item, inner in frames if self._scope(host, inner).holds(frame.when)]
        except TaskFailure as error:
            self._known(task, frame, host, {"failed": True, "changed": False, "msg": f"Task failed: {error}"}, {})
            return []

    @staticmethod
    def _loop_variable(task: Task, item: Any) -> dict[str, Any]:
        control = task.keywords.get("loop_control", {})
        if set(control) - {"loop_var", "label"}:
            raise UnknownPlaybook(f"{task.where}, task {task.name}: loop_control {sorted(control)}")
        return {control.get("loop_var", "item"): item} if "loop" in task.keywords else {}

    def _included(self, task: Task, frame: Frame, loop: dict[str, Any], hosts: list[str]) -> None:
        arguments = task.arguments if isinstance(task.arguments, dict) else {"file": task.arguments}
        variables = {**task.keywords.get("vars", {}), **loop}
        inner = replace(
            frame, params={**frame.params, **variables}, variables={**frame.variables, **variables})
        if task.action.endswith("_role"):
            known = {"name", "tasks_from", "apply", "rolespec_validate"}
            included: Optional[Role] = role(arguments["name"], frame.role)
            inner, file = replace(inner, role=included), f"{arguments.get('tasks_from', 'main')}.yml"
        else:
            known, included, file = {"file", "apply"}, frame.role, arguments["file"]
        if set(arguments) - known or included is None:
            raise UnknownPlaybook(f"{task.where}, task {task.name}: {sorted(arguments)}")
        applied = arguments.get("apply", {})
        if set(applied) - {"check_mode", "diff", "delegate_to"}:
            raise UnknownPlaybook(f"{task.where}, task {task.name}: apply {sorted(applied)}")
        self._entries(task_file(included.path / "tasks" / file), inner.inherit(applied, ()), hosts)
