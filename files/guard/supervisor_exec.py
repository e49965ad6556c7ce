# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""What the supervisor starts: a session of its own that ends with the supervisor, which then becomes the command.

    python3 -IS supervisor_exec.py PARENT -- COMMAND [ARG...]

Between fork and exec no Python may run in a process with threads; so this is a program.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

import supervisor_kernel
import version_guard as guard


def main(arguments: list[bytes]) -> int:
    """Become the command; returns only when that was impossible, with a status as a shell's."""
    os.setsid()
    supervisor_kernel.die_with_parent()
    if os.getppid() != int(arguments[0]):
        return guard.EXIT_REFUSED  # it ended before it was asked for its end
    return guard.become(arguments[2:], guard.initial_environment())


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.exit(main([os.fsencode(argument) for argument in sys.argv[1:]]))
