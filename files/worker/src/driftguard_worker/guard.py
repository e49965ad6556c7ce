# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Runs the start guard that the deployer mounts, before anything else of the worker is loaded.

The guard is normally the container's entrypoint and has passed already. It runs here too, so that a worker started in
another way (a command in the container, a compose file without the guard) is held to the same rules. Only the standard
library is used, and nothing is configurable: an environment must not be able to point to a guard that lets it pass.
"""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Callable, Mapping, NoReturn

from .errors import ExitStatus
from .names import GUARD_DIRECTORY

__all__ = ["run"]

_FILE = "version_guard.py"


def run(environment: Mapping[str, str], directory: Path = Path(GUARD_DIRECTORY)) -> None:
    """Run the mounted guard; without one, refuse in production and warn elsewhere.

    :param environment: only asked whether this is production.
    :param directory: where the guard and the host's record are mounted.
    :raises SystemExit: the guard refuses this start, or there is no guard where one must be (status 1).
    """
    check = _load(directory / _FILE)
    if check is not None:
        check()
    elif _production(environment) or directory.exists():
        _refuse(f"no guard at {directory / _FILE}", "there is no such file")
    else:
        print(f"[version] WARNING: no guard at {directory / _FILE}; outside production the worker starts without it")


def _production(environment: Mapping[str, str]) -> bool:
    return "production" in (environment.get("WORKER_ENV"), environment.get("NODE_ENV"))


def _load(file: Path) -> Callable[[], object] | None:
    if not file.exists():
        return None
    loader = SourceFileLoader("driftguard_version_guard", str(file))
    spec = spec_from_loader(loader.name, loader)
    if spec is None:
        return None
    module = module_from_spec(spec)
    # Registered as the import system does it: dataclasses look their own module up.
    sys.modules[loader.name] = module
    try:
        loader.exec_module(module)
        check: Callable[[], object] = module.run_startup_guards
    except (OSError, SyntaxError, ImportError, AttributeError, ValueError) as error:
        _refuse(f"the guard at {file} can't be loaded", f"{type(error).__name__}: {error}")
    return check


def _refuse(subject: str, found: str) -> NoReturn:
    print(f"[version] FATAL: {subject}", file=sys.stderr)
    print("[version]   expected: the guard and its record, mounted read-only by the deployment", file=sys.stderr)
    print(f"[version]   found: {found}", file=sys.stderr)
    print("[version]   remedy: deploy this host with playbooks/deploy-workers.yml, which mounts them", file=sys.stderr)
    raise SystemExit(int(ExitStatus.GUARD))
