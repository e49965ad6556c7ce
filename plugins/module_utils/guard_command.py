# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard as a container's entrypoint: how it is rendered, and what alone passes for it. Pure."""

from __future__ import annotations

from typing import Optional, Sequence

from .names import GUARD_MOUNT
from .release_info import GUARD_PYTHON, Release, VariantImage

EXEC = "exec"
SUPERVISE = "supervise"
NODE = "node"
MODES = (EXEC, SUPERVISE, NODE)
PYTHON_GUARD = f"{GUARD_MOUNT}/version_guard.py"
SH_GUARD = f"{GUARD_MOUNT}/version_guard.sh"
# -I and -S: neither the environment nor site-packages can put another module in the guard's way.
_ISOLATED = "-IS"


def guard_command(image: VariantImage, mode: str) -> list[str]:
    """The entrypoint of a service's containers, up to ``--``.

    :param mode: ``exec``: the guard becomes the worker; ``supervise``: it stays as its parent, which takes Python;
        ``node``: as with exec, and node_guard.py puts another into the command.
    """
    if image.guard == GUARD_PYTHON:
        return [image.guard_program, _ISOLATED, PYTHON_GUARD, *(["--supervise"] if mode == SUPERVISE else []), "--"]
    return [image.guard_program, SH_GUARD, "--"]


def entrypoint_of(release: Optional[Release], variant: str, mode: str) -> tuple[str, ...]:
    """The entrypoint of a variant's containers, empty where the release isn't known or hasn't it."""
    image = release.variants.get(variant) if release else None
    return tuple(guard_command(image, mode)) if image else ()


def health_command(image: VariantImage) -> list[str]:
    """What asks a supervisor how its worker is."""
    return [image.guard_program, _ISOLATED, PYTHON_GUARD, "--health"]


def is_guard_command(words: Sequence[str]) -> bool:
    """Whether an entrypoint is one that :func:`guard_command` can make, for some image and mode.

    A guard with another option (``--check``, ``--record`` …) isn't: it would judge by other rules, or not at all.
    """
    program, rest = words[:1], tuple(words[1:])
    return bool(program) and program[0].startswith("/") and rest in (
        (_ISOLATED, PYTHON_GUARD, "--"), (_ISOLATED, PYTHON_GUARD, "--supervise", "--"), (SH_GUARD, "--"))
