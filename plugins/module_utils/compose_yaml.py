# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents as YAML that Compose reads as they were meant."""

from __future__ import annotations

import re
from typing import Any, Optional

from .errors import DriftguardError

try:
    import yaml

    MISSING: Optional[str] = None
except ImportError as _error:
    MISSING = str(_error)

# No YAML reader takes these for anything but text, except for the words that PyYAML itself quotes (yes, null …).
_PLAIN = re.compile(r"^[A-Za-z/][A-Za-z0-9_./@-]*(?::[A-Za-z0-9_./@-]+)*\Z")


class Unsafe(str):
    """Text that Ansible must not take for a template."""

    __slots__ = ()


def to_yaml(document: Any) -> str:
    """A document as YAML: own order, no line folding, and every text in quotes that a YAML reader may take for another
    value. Compose's reader knows numbers that PyYAML doesn't: plain ``12345e7`` and ``0o7`` would reach workers as
    1.2345e+11 and 7.

    :raises DriftguardError: PyYAML is missing.
    """
    if MISSING is not None:
        raise DriftguardError(
            "Python library PyYAML", "to be installed for the interpreter that runs this module", MISSING,
            "run playbooks/bootstrap.yml, or install python3-yaml (Debian) or the PyYAML package")

    class Quoting(yaml.SafeDumper):
        """Quotes all but plain words."""

    def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _PLAIN.match(text) else '"')

    def unsafe(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("!unsafe", str(text), style='"')

    Quoting.add_representer(str, quoted)
    Quoting.add_representer(Unsafe, unsafe)
    return str(yaml.dump(
        document, Dumper=Quoting, sort_keys=False, default_flow_style=False, allow_unicode=True, width=2**20))


def escaped(value: Any) -> Any:
    """Double every dollar sign: compose would read variables of the deployer's shell into the file."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: escaped(content) for key, content in value.items()}
    if isinstance(value, list):
        return [escaped(element) for element in value]
    return value
