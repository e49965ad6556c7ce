# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluates the expressions of the role's files as ansible-core 2.19 does, compiled once: a model run has thousands.

Filters and tests are ansible-core's own. What a variable holds is templated when it is asked for; a variable that can't
be templated counts as undefined until somebody needs its value.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Callable, Mapping

import jinja2
from ansible.plugins.filter.core import FilterModule as CoreFilters
from ansible.plugins.filter.mathstuff import FilterModule as MathFilters
from ansible.plugins.test.core import TestModule as CoreTests
from ansible.plugins.test.mathstuff import TestModule as MathTests
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.utils import missing

__all__ = ["OMIT", "Layers", "Scope", "TaskFailure", "Undefined", "is_undefined"]


class TaskFailure(Exception):
    """A task that can't be carried out: an undefined variable, a condition that isn't true or false."""


class Undefined(jinja2.StrictUndefined):
    """An undefined value that may be looked into, as core 2.19 has it: only who needs the value fails."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, _key: Any) -> Any:
        return self


class _Omit:
    def __repr__(self) -> str:
        return "omit"


OMIT = _Omit()
Layers = tuple[tuple[Mapping[str, Any], bool], ...]
_TEMPLATE = re.compile(r"\{\{|\{%")


class _Context(Context):
    """Where names of an expression come from: a scope, instead of a dictionary of everything."""

    scope: Scope

    def resolve_or_missing(self, key: str) -> Any:
        found = self.scope.get(key)
        return self.parent.get(key, missing) if found is missing else found


def _listing(found: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose answer can be used more than once, as ansible-core makes them."""

    def apply(*arguments: Any, **options: Any) -> Any:
        return _plain(found(*arguments, **options))

    # How Jinja is told what else to hand over.
    apply.__dict__.update(getattr(found, "__dict__", {}))
    return apply


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(undefined=Undefined, keep_trailing_newline=True)
    environment.context_class = _Context
    for plugins in (CoreFilters(), MathFilters()):
        environment.filters.update(plugins.filters())  # type: ignore[no-untyped-call]
    # ansible-core takes these from Jinja.
    own = jinja2.Environment()
    environment.filters.update({name: own.filters[name] for name in ("default", "map", "select", "reject", "d")})
    environment.filters = {name: _listing(found) for name, found in environment.filters.items()}
    for checks in (CoreTests(), MathTests()):
        environment.tests.update(checks.tests())  # type: ignore[no-untyped-call]
    environment.tests.update({name: own.tests[name] for name in ("defined", "undefined", "in")})
    return environment


_ENVIRONMENT = _environment()
Evaluator = Callable[["Scope"], Any]


@lru_cache(maxsize=None)
def _expression(source: str) -> Evaluator:
    parser = Parser(_ENVIRONMENT, source, state="variable")
    value = parser.parse_expression()
    if not parser.stream.eos:
        raise ValueError(f"not one expression: {source}")
    value.set_environment(_ENVIRONMENT)
    body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store"), value, lineno=1)]
    template = _ENVIRONMENT.from_string(nodes.Template(body, lineno=1))

    def evaluate(scope: Scope) -> Any:
        context = _context(template, scope)
        for _nothing in template.root_render_func(context):
            pass
        return context.vars["result"]

    return evaluate


@lru_cache(maxsize=None)
def _template(source: str) -> Evaluator:
    """A template of one expression keeps its value's type; anything else is text."""
    outputs = _ENVIRONMENT.parse(source).body
    if len(outputs) == 1 and isinstance(outputs[0], nodes.Output) and len(outputs[0].nodes) == 1:
        inner = source.strip()
        if inner.startswith("{{") and inner.endswith("}}"):
            return _expression(inner[2:-2].strip().strip("-").strip())
    template = _ENVIRONMENT.from_string(source)

    def evaluate(scope: Scope) -> Any:
        return "".join(template.root_render_func(_context(template, scope)))

    return evaluate


def _context(template: jinja2.Template, scope: Scope) -> Any:
    context = _Context(_ENVIRONMENT, dict(scope.functions), None, {})
    context.scope = scope
    return context


def is_undefined(value: Any) -> bool:
    """Whether a value, or a part of it, is undefined."""
    if isinstance(value, Undefined):
        return True
    if isinstance(value, dict):
        return any(is_undefined(part) for part in value.values())
    return isinstance(value, (list, tuple)) and any(is_undefined(part) for part in value)


class Scope:
    """The variables that one task of one host sees.

    :param layers: variables and whether they are templates, the strongest first.
    :param functions: what expressions may call, beside Jinja's own.
    """

    def __init__(self, layers: Layers, functions: Mapping[str, Any]) -> None:
        self._layers = layers
        self.functions = functions
        self._known: dict[str, Any] = {}
        self._open: set[str] = set()

    def get(self, name: str) -> Any:
        """A variable's value, Jinja's ``missing`` where there is none."""
        if name in self._known:
            return self._known[name]
        for layer, has_templates in self._layers:
            if name in layer:
                value = self._named(name, layer[name]) if has_templates else layer[name]
                self._known[name] = value
                return value
        return missing

    def has(self, name: str) -> bool:
        """Whether there is such a variable."""
        return any(name in layer for layer, _has_templates in self._layers)

    def _named(self, name: str, raw: Any) -> Any:
        if name in self._open:
            return Undefined(f"{name} refers to itself")
        self._open.add(name)
        try:
            return self.resolved(raw)
        finally:
            self._open.discard(name)

    def resolved(self, raw: Any) -> Any:
        """A value with its templates evaluated; what can't be is undefined."""
        if isinstance(raw, str):
            if not _TEMPLATE.search(raw):
                return raw
            try:
                return _plain(_template(raw)(self))
            except (jinja2.UndefinedError, TaskFailure) as error:
                return Undefined(f"{raw!r}: {error}")
        if isinstance(raw, dict):
            values = {key: self.resolved(value) for key, value in raw.items()}
            return {key: value for key, value in values.items() if value is not OMIT}
        if isinstance(raw, list):
            return [value for value in (self.resolved(part) for part in raw) if value is not OMIT]
        return raw

    def template(self, raw: Any) -> Any:
        """A value that is needed now.

        :raises TaskFailure: it, or a part of it, is undefined.
        """
        value = self.resolved(raw)
        if is_undefined(value):
            raise TaskFailure(f"undefined in {raw!r}: {_reason(value)}")
        return value

    def holds(self, conditions: tuple[Any, ...]) -> bool:
        """Whether all conditions are true.

        :raises TaskFailure: one is undefined, or neither true nor false.
        """
        for condition in conditions:
            try:
                value = condition if isinstance(condition, bool) else _expression(str(condition).strip())(self)
            except (jinja2.UndefinedError, TypeError) as error:
                raise TaskFailure(f"condition {condition!r}: {error}") from error
            if not isinstance(value, bool):
                raise TaskFailure(f"condition {condition!r} is {value!r}, which is neither true nor false")
            if not value:
                return False
        return True


def _plain(value: Any) -> Any:
    """Without generators and views: a template's value may be used more than once."""
    if isinstance(value, (dict, str, int, float, type(None), Undefined, _Omit, list)):
        return value
    if isinstance(value, (tuple, set)) or hasattr(value, "__next__") or type(value).__name__.startswith("dict_"):
        return list(value)
    return value


def _reason(value: Any) -> str:
    if isinstance(value, Undefined):
        return str(value._undefined_message)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return next((_reason(part) for part in parts if is_undefined(part)), "")
