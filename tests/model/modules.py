# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the collection's own modules in this process, over a simulated engine, host and clock."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Callable, Optional

import pytest
from ansible.module_utils.common.arg_spec import ModuleArgumentSpecValidator
from ansible_collections.driftguard.workers.plugins.module_utils import module_base, processes
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner import Owner
from ansible_collections.driftguard.workers.plugins.module_utils.processes import Completed
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from ansible_collections.driftguard.workers.plugins.module_utils.side_by_side import side_by_side
from model.actions import LOCALHOST
from model.interpreter import Run

if TYPE_CHECKING:
    from model.world import Model

__all__ = ["Modules", "ProductDefect", "in_process"]

PACKAGE = "ansible_collections.driftguard.workers.plugins"
_REAL = (
    "worker_inventory", "worker_evidence", "worker_lock", "worker_release", "worker_rollout", "worker_version_assert",
    "worker_compose", "worker_guard", "worker_image_pull", "worker_history", "worker_version_info", "worker_steps",
)
_current: list[_Call] = []


class ProductDefect(AssertionError):
    """A module met an error that it didn't expect."""


class _Call:
    """The module call under way: on which host of which model."""

    def __init__(self, model: Model, run: Run, host: str) -> None:
        self.model, self.run, self.host = model, run, host


class _Caught(Exception):
    """Carries a module's specification and work out of its ``main``."""

    def __init__(self, spec: dict[str, Any], action: Callable[[Any], Any], options: dict[str, Any]) -> None:
        super().__init__("caught")
        self.spec, self.action, self.options = spec, action, options


class _Module:
    """What the modules use of AnsibleModule."""

    def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
        self.params, self.check_mode = params, check_mode
        self.no_log_values: set[str] = set()
        self._diff = False

    def warn(self, _text: str) -> None:
        """A warning is nothing that the model looks at."""


class Modules:
    """The modules of one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._count = itertools.count()
        self.functions: Mapping[str, Any] = {
            "lookup": self._lookup, "now": self._now, "dict": dict, "range": range}

    def run(self, run: Run, host: str, name: str, arguments: dict[str, Any], check_mode: bool) -> dict[str, Any]:
        """Run one; its result as plain data.

        :raises ProductDefect: it failed with what is nobody's but its own.
        """
        if name == "worker_image":
            return self._image(run, check_mode)
        if name not in _REAL:
            raise ProductDefect(f"the model has no module {name}")
        _current.append(_Call(self._model, run, host))
        try:
            result = self._real(name, arguments, check_mode)
        finally:
            _current.pop()
            if name in ("worker_release", "worker_steps"):
                self._model.look_again(host)
        if "this is a defect" in str(result.get("msg", "")):
            raise ProductDefect(result["msg"])
        return dict(json.loads(json.dumps(result)))

    @staticmethod
    def _real(name: str, arguments: dict[str, Any], check_mode: bool) -> dict[str, Any]:
        action, validator = _loaded(name)
        checked = validator.validate(arguments)  # type: ignore[no-untyped-call]
        if checked.error_messages:
            return {"failed": True, "msg": "; ".join(checked.error_messages)}
        module: Any = _Module(checked.validated_parameters, check_mode)
        try:
            result = action(module)
        except module_base.FailedResult as error:
            return {"failed": True, "changed": error.changed, **error.values, **error.as_result()}
        except DriftguardError as error:
            return {"failed": True, **error.as_result()}
        return module_base.exit_values(result, module._diff)

    def _image(self, run: Run, check_mode: bool) -> dict[str, Any]:
        release = run.source  # type: ignore[attr-defined]
        is_new = release.release_id not in self._model.built
        if is_new and not check_mode:
            self._model.built.add(release.release_id)
            self._model.images[release.image.reference] = self._model.images[release.image.id] = release.image
        data = release.data()
        if is_new and check_mode:
            data = {**data, "created": None, "variants": {}}
        return {"changed": is_new, "release": data, "release_id": release.release_id, "sha": release.sha}

    def _lookup(self, plugin: str, *terms: Any, wantlist: bool = False, **_options: Any) -> Any:
        answers: dict[str, Callable[[Any], str]] = {
            "ansible.builtin.password": lambda _term: f"{next(self._count):06x}",
            "ansible.builtin.pipe": lambda _term: "operator",
            "ansible.builtin.env": lambda term: f"/{term}",
            "ansible.builtin.file": lambda term: f"text of {Path(term).name}\n"}
        found = [answers[plugin](term) for term in terms]
        return found if wantlist else ",".join(found)

    def _now(self, utc: bool = False, fmt: str = "") -> str:
        return datetime.fromtimestamp(self._model.clock.now, timezone.utc).strftime(fmt)


_known: dict[str, tuple[Callable[[Any], Any], ModuleArgumentSpecValidator]] = {}


def _loaded(name: str) -> tuple[Callable[[Any], Any], ModuleArgumentSpecValidator]:
    """What a module's ``main`` hands to ``run_module``."""
    if name not in _known:
        module = importlib.import_module(f"{PACKAGE}.modules.{name}")

        def catch(spec: dict[str, Any], action: Callable[[Any], Any], **options: Any) -> None:
            raise _Caught(spec, action, options)

        with pytest.MonkeyPatch.context() as patch:
            for place in (module, module_base):
                patch.setattr(place, "run_module", catch, raising=False)
            try:
                module.main()
            except _Caught as caught:
                validator = ModuleArgumentSpecValidator(  # type: ignore[no-untyped-call]
                    caught.spec, **caught.options)
                _known[name] = caught.action, validator
    return _known[name]


# what stands for the machine while modules run


def _one_by_one(work: Iterable[Callable[[], None]], _at_once: int, meanwhile: Callable[[], None]) -> None:
    """Side by side, without threads: one after the other, in order."""
    for piece in work:
        meanwhile()
        piece()


def _model() -> Model:
    return _current[-1].model


def _sleep(seconds: float) -> None:
    # A look in the model costs as much as one in the world, so it looks less often: a slow machine.
    _model().clock.move(max(seconds * 4, 1.5))


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.fromtimestamp(_model().clock.now, tz)


_TIME = SimpleNamespace(
    monotonic=lambda: _model().clock.now, time=lambda: _model().clock.now, sleep=_sleep)


def _process(arguments: list[str], *, meanwhile: Optional[Callable[[], None]] = None, **_options: Any) -> Completed:
    call = _current[-1]
    if arguments[1] != "compose":
        raise ProductDefect(f"a program that the model doesn't know: {arguments}")
    found = call.model.engines[call.host].compose(arguments)
    if meanwhile is not None:
        meanwhile()
    return Completed(tuple(arguments), 1 if found else 0, "", found or "")


def _check(arguments: list[str], *, remedy: str, **options: Any) -> Completed:
    return processes.checked(_process(arguments, **options), remedy)


_PROCESSES = SimpleNamespace(run=_process, check=_check, checked=processes.checked)


class _Engine:
    """Stands for the gateway where modules connect."""

    @staticmethod
    def connect(*_credentials: Any) -> Any:
        call = _current[-1]
        engine = call.model.engines[call.host]
        engine.network_names()
        return engine


class _Gateway(RedisGateway):
    """The real gateway, whose connection may be gone, and whose registrations are those of the simulated workers."""

    @classmethod
    def connect(cls, *_arguments: Any, **_options: Any) -> _Gateway:
        _model().redis_call()
        return cls(_model().redis, "redis.test:6379/0")

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        _model().redis_call()
        with super()._asking(what):
            yield

    def registrations(self, fleet: str) -> Any:
        _model().redis_call()
        _model().write_registrations()
        return super().registrations(fleet)


def _once(dump: Callable[[Any], str]) -> Callable[[Any], str]:
    """The same text for the same document: most of a model run would go into writing YAML."""
    known: dict[str, str] = {}

    def cached(document: Any) -> str:
        key = json.dumps(document)
        if key not in known:
            known[key] = dump(document)
        return known[key]

    return cached


def _owner(name: str, run: str, pid: Optional[int]) -> Owner:
    return Owner("operator", LOCALHOST, run, 0, "", "")


@contextmanager
def in_process() -> Iterator[None]:
    """Modules run in this process while the context lasts."""
    for name in _REAL:
        _loaded(name)
    with pytest.MonkeyPatch.context() as patch:
        for module in _own_modules():
            _replace(patch, module)
        render = importlib.import_module(f"{PACKAGE}.module_utils.compose_render")
        patch.setattr(render, "to_yaml", _once(render.to_yaml))
        compose_host = importlib.import_module(f"{PACKAGE}.module_utils.compose_host")
        patch.setattr(compose_host.write_compose, "__defaults__", (_Engine.connect,))
        patch.setattr(os, "fsync", lambda _handle: None)
        yield


def _own_modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.startswith(PACKAGE) and module is not None]


def _replace(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Put the simulated things where a module has the real ones; only in the collection's own modules."""
    import time  # noqa: PLC0415

    stand_ins = {
        "time": (time, _TIME), "datetime": (datetime, _Datetime),
        "side_by_side": (side_by_side, _one_by_one),
        "this_owner": (None, _owner), "RedisGateway": (RedisGateway, _Gateway), "_docker": (None, lambda: "docker"),
        "processes": (processes, _PROCESSES)}
    for name, (real, simulated) in stand_ins.items():
        if hasattr(module, name) and (real is None or getattr(module, name) is real):
            if module.__name__.endswith((".redis_gateway", ".lease_owner")) and name in ("RedisGateway", "this_owner"):
                continue
            patch.setattr(module, name, simulated)
    for name in ("Engine", "ImageEngine"):
        if hasattr(module, name) and not module.__name__.endswith((".engine", ".engine_images")):
            patch.setattr(module, name, _Engine)
    gateway = importlib.import_module(f"{PACKAGE}.module_utils.redis_gateway")
    if module is gateway:
        patch.setattr(module, "RedisGateway", _Gateway)
