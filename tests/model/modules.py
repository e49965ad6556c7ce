# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the collection's own modules in this process, over a simulated engine, host and clock."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import pytest
from ansible.module_utils.common.arg_spec import ModuleArgumentSpecValidator
from ansible_collections.driftguard.workers.plugins.module_utils import module_base
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from model.faults import Killed
from model.interpreter import Run
from model.lease import Attended, rollout_of
from model.machine import CURRENT, PACKAGE, Call, ProductDefect, stand_ins

if TYPE_CHECKING:
    from model.world import Model

__all__ = ["Modules", "in_process"]

_REAL = (
    "worker_inventory", "worker_evidence", "worker_lock", "worker_release", "worker_rollout", "worker_version_assert",
    "worker_compose", "worker_guard", "worker_image_pull", "worker_history", "worker_version_info", "worker_steps",
    "worker_fence",
)


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
        if name == "worker_redis_user":
            return self._user(arguments)
        if name not in _REAL:
            raise ProductDefect(f"the model has no module {name}")
        rollout = rollout_of(name, arguments, check_mode)
        under = self._model.under
        result = self._on(host, name, arguments, check_mode, rollout)
        if under is not None and under.interrupted:
            raise Killed
        if "this is a defect" in str(result.get("msg", "")):
            raise ProductDefect(result["msg"])
        return dict(json.loads(json.dumps(result)))

    def _on(
        self, host: str, name: str, arguments: dict[str, Any], check_mode: bool = False,
        rollout: Optional[dict[str, Any]] = None,
    ) -> dict[str, Any]:
        """Run a module on a host; the rollout in it is attended."""
        call = Call(self._model, host)
        CURRENT.append(call)
        try:
            if rollout is None or self._model.blind:
                return self._real(name, arguments, check_mode)
            attended = Attended(rollout, partial(self._on, host), self._model.go_on)
            call.go_on = attended.go_on
            return attended.run(partial(self._real, name, arguments, check_mode))
        finally:
            CURRENT.pop()

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

    def _user(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Users are nothing that the model looks at; that those of other releases go takes a drain."""
        if arguments.get("state") == "pruned":
            self._model.clock.move(self._model.drain)
        return {"changed": False, "made": [], "removed": []}

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


@contextmanager
def in_process() -> Iterator[None]:
    """Modules run in this process while the context lasts."""
    for name in _REAL:
        _loaded(name)
    with stand_ins():
        yield
