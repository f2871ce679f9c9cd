"""What llama.cpp does to the whole process, put right."""

from __future__ import annotations

import os
import signal
import threading


def wait_without_spinning() -> None:
    """Makes the engine's threads sleep when they wait for one another; works before xllamacpp is first imported only.

    libgomp spins by default. With other processes on the same cores that starves the very thread that is waited for: 40 tokens
    on 2 threads took 30 to 70 s on a busy two-core machine, and 1.3 to 2.3 s with this. Set either variable to override.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def give_signals_back() -> None:
    """Re-installs Python's handlers over the ones llama.cpp set by sigaction; works in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is not None:
            signal.signal(number, handler)
            signal.siginterrupt(number, False)
