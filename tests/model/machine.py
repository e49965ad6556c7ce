# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands for the machine while modules run: time, processes, the engine's gateway and Redis's."""

from __future__ import annotations

import importlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Callable, Optional

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import processes
from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner import Owner
from ansible_collections.driftguard.workers.plugins.module_utils.processes import Completed
from ansible_collections.driftguard.workers.plugins.module_utils.redis_gateway import RedisGateway
from ansible_collections.driftguard.workers.plugins.module_utils.side_by_side import side_by_side
from model.actions import LOCALHOST

if TYPE_CHECKING:
    from model.world import Model

__all__ = ["CURRENT", "PACKAGE", "Call", "ProductDefect", "stand_ins"]

PACKAGE = "ansible_collections.driftguard.workers.plugins"


class ProductDefect(AssertionError):
    """A module met an error that it didn't expect."""


class Call:
    """A module call under way: on which host of which model.

    :param go_on: called while it waits; raises when it must stop.
    """

    def __init__(self, model: Model, host: str, go_on: Callable[[], None] = lambda: None) -> None:
        self.model, self.host, self.go_on = model, host, go_on


CURRENT: list[Call] = []


def _one_by_one(work: Iterable[Callable[[], None]], _at_once: int, meanwhile: Callable[[], None]) -> None:
    """Side by side, without threads: one after the other, in order."""
    for piece in work:
        meanwhile()
        piece()


def _model() -> Model:
    return CURRENT[-1].model


def _sleep(seconds: float) -> None:
    # A look in the model costs as much as one in the world, so it looks less often: a slow machine.
    _model().clock.move(max(seconds * 4, 1.5))
    CURRENT[-1].go_on()


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.fromtimestamp(_model().clock.now, tz)


_TIME = SimpleNamespace(
    monotonic=lambda: _model().clock.now, time=lambda: _model().clock.now, sleep=_sleep)


def _process(arguments: list[str], *, meanwhile: Optional[Callable[[], None]] = None, **_options: Any) -> Completed:
    call = CURRENT[-1]
    if arguments[1] != "compose":
        raise ProductDefect(f"a program that the model doesn't know: {arguments}")
    found = call.model.engines[call.host].compose(arguments)
    if meanwhile is not None:
        meanwhile()
    return Completed(tuple(arguments), 1 if found else 0, "", found or "")


def _check(arguments: list[str], *, remedy: str, **options: Any) -> Completed:
    return processes.checked(_process(arguments, **options), remedy)


_PROCESSES = SimpleNamespace(run=_process, check=_check, checked=processes.checked)


def _fsync(handle: int) -> None:
    """Costs no time, and finds a full disk, as it does where the disk only tells then."""
    under = _model().under
    if under is not None and stat.S_ISREG(os.fstat(handle).st_mode):
        under.file(CURRENT[-1].host)


class _Engine:
    """Stands for the gateway where modules connect."""

    @staticmethod
    def connect(*_credentials: Any) -> Any:
        call = CURRENT[-1]
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

    def script(self, what: str, lua: str, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        answer = super().script(what, lua, keys, arguments)
        _model().redis_answered(lua, arguments, answer)
        return answer

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
def stand_ins() -> Iterator[None]:
    """The collection's own modules, those that are loaded, work with simulated things while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for module in _own_modules():
            _replace(patch, module)
        render = importlib.import_module(f"{PACKAGE}.module_utils.compose_render")
        patch.setattr(render, "to_yaml", _once(render.to_yaml))
        compose_host = importlib.import_module(f"{PACKAGE}.module_utils.compose_host")
        patch.setattr(compose_host.write_compose, "__defaults__", (_Engine.connect,))
        patch.setattr(os, "fsync", _fsync)
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
