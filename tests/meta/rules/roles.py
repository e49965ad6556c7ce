# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every role has to have, and that its defaults are those that its argument specs document."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, Mapping

import yaml

from .files import ROOT, all_files

PARTS = ("defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml", "README.md")


def names() -> list[str]:
    """All roles."""
    return sorted({path.split("/")[1] for path in all_files() if path.startswith("roles/")})


def missing_parts(role: Path) -> list[str]:
    """Files that a role lacks."""
    return [f"no {part}" for part in PARTS if not (role / part).is_file()]


def load(role: Path, part: str) -> dict[str, Any]:
    """A YAML file of a role; empty where there is none."""
    path = role / part
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def entry_points(role: Path) -> dict[str, dict[str, Any]]:
    """Options by entry point."""
    specs = load(role, "meta/argument_specs.yml").get("argument_specs") or {}
    return {name: dict(spec.get("options") or {}) for name, spec in specs.items()}


def spec_differences(defaults: Mapping[str, Any], points: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Defaults that no entry point documents, and options whose documented default isn't the real one."""
    for name in sorted(defaults):
        if not any(name in options for options in points.values()):
            yield f"defaults: {name} is not in the argument specs"
    for point, options in points.items():
        for name, option in options.items():
            yield from _option_difference(f"argument_specs.{point}.{name}", name, option, defaults)


def _option_difference(where: str, name: str, option: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    if not option.get("description"):
        yield f"{where}: no description"
    if option.get("required"):
        if name in defaults:
            yield f"{where}: required, yet it has a default"
    elif name in defaults and option.get("default") != defaults[name] and not _is_template(defaults[name]):
        yield f"{where}: default {option.get('default')!r}, really {defaults[name]!r}"
    elif name not in defaults and "default" in option:
        yield f"{where}: default {option['default']!r}, but defaults/main.yml has none"


def _is_template(value: Any) -> bool:
    """Whether a default depends on other variables; then its description says what it comes to."""
    return "{{" in repr(value)


def badly_named(role: str, names_of: Mapping[str, Any], public: bool) -> list[str]:
    """Variables without the role's prefix: ``<role>_`` or ``worker_`` in public, ``__<role>_`` inside."""
    prefixes = (f"{role}_", "worker_") if public else (f"__{role}_",)
    return [name for name in names_of if not name.startswith(prefixes)]


def directory(role: str) -> Path:
    """Where a role is."""
    return ROOT / "roles" / role
