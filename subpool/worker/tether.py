"""A process that must not outlive the one that started it."""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent(parent: int | None = None) -> None:
    """Let the system kill this process when the thread that started it has ended; Linux alone can. Whoever can only
    notice that a socket is closed must also be able to run, and a C call may keep the GIL for ever.

    `parent`: its pid, if it may have ended before this call; then this process ends now.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
