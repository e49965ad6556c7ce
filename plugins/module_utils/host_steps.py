# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules' work, one after the other in one process: the work of worker_steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .attendance import Attendance, SafePoint, take_private
from .errors import DriftguardError
from .module_base import FailedResult, Result, Work, exit_values

Values = Dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One module's call.

    :param take: option to ``step.value``: what an earlier step returned.
    :param looks: runs in check mode whatever the run does, and shows no diff.
    :param unless_changed: is left out once an earlier step has changed something, or would.
    :param only_if: ``step.value`` that has to be true, or this one is left out.
    :param unless: ``step.value`` that must not be true, or this one is left out.
    :param may_fail: its failure is its result, and ends nothing.
    """

    name: str
    work: Work
    options: Values
    take: Mapping[str, str]
    looks: bool
    unless_changed: bool = False
    only_if: str = ""
    unless: str = ""
    may_fail: bool = False


class Part:
    """What a step's work sees of the module that it is a part of."""

    def __init__(self, module: Any, params: Values, looks: bool, safe_point: SafePoint) -> None:
        self.params = params
        self.safe_point = safe_point
        self.check_mode = bool(module.check_mode or looks)
        self.no_log_values: set[str] = module.no_log_values
        self.warn = module.warn
        self.is_diff = bool(module._diff and not looks)


def run_steps(module: Any, works: Mapping[str, Work]) -> Result:
    """Do all steps in order, up to the first that fails.

    :param works: what the modules do, by their names.
    :returns: values ``by_step``; the failure that ends it carries them, and which step it was, as well.
    :raises DriftguardError: a step's options aren't what its module takes, found before the first step runs; or
        its work failed.
    """
    steps = [_step(raw, works) for raw in _asked(module, works)]
    for step in steps:
        # Whatever is said from here on, as of the invocation at -vvv, may have these in it.
        module.no_log_values.update(_validated(step, step.options)._no_log_values)
    _check_names(steps)
    ready = [None if step.take else _params(module, step, {}) for step in steps]
    safe_point = _safe_point(module.params)
    results: dict[str, Values] = {}
    diffs: list[Any] = []
    for step, params in zip(steps, ready):
        if _is_left_out(step, results):
            continue
        part = Part(module, params if params is not None else _params(module, step, results), step.looks, safe_point)
        try:
            safe_point()
            values = exit_values(step.work.action(part), part.is_diff)
        except DriftguardError as error:
            results[step.name] = _failed(error)
            if step.may_fail:
                continue
            done = {"by_step": results, "failed_step": step.name, **_diff(diffs)}
            raise FailedResult(error, done, _is_changed(results)) from error
        diffs += [values.pop("diff")] if "diff" in values else []
        results[step.name] = values
    return Result(_is_changed(results), {"by_step": results, **_diff(diffs)})


def _asked(module: Any, works: Mapping[str, Work]) -> list[Values]:
    """The steps: the module's option, or what the controller left in the run's directory, in the same form."""
    options = module.params
    if options["steps"] is not None:
        return list(options["steps"])
    try:
        steps = json.loads(take_private(Path(options["attendance"])))["steps"]
    except (ValueError, TypeError, KeyError) as error:
        raise DriftguardError("option attendance", "steps in the run's directory", str(error), "run again") from error
    found = ArgumentSpecValidator(steps_spec(works)).validate({"steps": steps})  # type: ignore[no-untyped-call]
    if found.error_messages:
        raise DriftguardError(
            "option steps", "steps as the module documents them", "; ".join(found.error_messages), "mend them")
    return list(found.validated_parameters["steps"])


def steps_spec(works: Mapping[str, Work]) -> Values:
    """The argument spec of the option ``steps``.

    :param works: what the modules do, by their names.
    """
    step = {
        "name": {"type": "str", "required": True},
        "module": {"type": "str", "required": True, "choices": sorted(works)},
        "options": {"type": "dict", "required": True},
        "take": {"type": "dict", "default": {}},
        "looks": {"type": "bool", "default": False},
        "unless_changed": {"type": "bool", "default": False},
        "only_if": {"type": "str", "default": ""},
        "unless": {"type": "str", "default": ""},
        "may_fail": {"type": "bool", "default": False},
    }
    return {"steps": {"type": "list", "elements": "dict", "options": step}}


def _safe_point(options: Mapping[str, Any]) -> SafePoint:
    """Where these steps stop when whoever attends them is gone: between two, and where one of them asks."""
    if not options["attendance"]:
        return SafePoint()
    attendance = Attendance(options, "the steps on this host")
    attendance.listen()
    return attendance.safe_point(lambda: None)


def _step(raw: Values, works: Mapping[str, Work]) -> Step:
    # A value that isn't given is none: templates have no other way to leave out what lies this deep.
    given = {name: value for name, value in raw["options"].items() if value is not None}
    return Step(
        raw["name"], works[raw["module"]], given, raw["take"], raw["looks"], raw["unless_changed"], raw["only_if"],
        raw["unless"], raw["may_fail"])


def _check_names(steps: list[Step]) -> None:
    known: set[str] = set()
    for step in steps:
        if step.name in known:
            raise DriftguardError(
                f"step {step.name}", "a name of its own", "two steps of that name", "give each step another name")
        sources = {f"take, {option}": source for option, source in step.take.items()}
        conditions = {"only_if": step.only_if, "unless": step.unless}
        for option, source in {**sources, **{name: one for name, one in conditions.items() if one}}.items():
            if source.partition(".")[0] not in known or not source.partition(".")[2]:
                raise DriftguardError(
                    f"step {step.name}, {option}",
                    "an earlier step and one of its return values, as in compose.revision", repr(source),
                    "name a step that comes before this one")
        known.add(step.name)


def _params(module: Any, step: Step, results: Mapping[str, Values]) -> Values:
    """The options as the module's own argument specification makes them."""
    taken = {option: _value(results, source) for option, source in step.take.items()}
    found = _validated(step, {**step.options, **{name: one for name, one in taken.items() if one is not None}})
    module.no_log_values.update(found._no_log_values)
    if found.error_messages:
        raise DriftguardError(
            f"step {step.name}, options", "what its module takes", "; ".join(found.error_messages),
            "see ansible-doc of the module")
    return dict(found.validated_parameters)


def _validated(step: Step, options: Values) -> Any:
    return ArgumentSpecValidator(step.work.arguments, **step.work.checks).validate(options)  # type: ignore[no-untyped-call]


def _is_left_out(step: Step, results: Mapping[str, Values]) -> bool:
    return bool(
        (step.unless_changed and _is_changed(results))
        or (step.only_if and not _value(results, step.only_if))
        or (step.unless and _value(results, step.unless)))


def _value(results: Mapping[str, Values], source: str) -> Any:
    """What an earlier step returned, by its name and the keys that lead to it; None where there is none."""
    found: Any = results
    for key in source.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _failed(error: DriftguardError) -> Values:
    values: Optional[Values] = error.values if isinstance(error, FailedResult) else None
    changed = error.changed if isinstance(error, FailedResult) else False
    return {"failed": True, "changed": changed, **(values or {}), **error.as_result()}


def _diff(diffs: list[Any]) -> Values:
    return {"diff": diffs} if diffs else {}


def _is_changed(results: Mapping[str, Values]) -> bool:
    return any(values.get("changed") for values in results.values())
