# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Runtime of the reference worker.

Importing this package loads nothing else: the start guard has to run before anything that could open a connection.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
