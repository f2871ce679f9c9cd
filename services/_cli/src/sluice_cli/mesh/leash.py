"""supervisord on a leash: it ends, with everything it runs, when the process that holds its standard input is gone.

`python -m sluice_cli.mesh.leash -c FILE` is supervisord itself. With SLUICE_MESH_LEASH=1 its standard input is a pipe from the
foreground command: end of file there means that the terminal, the command or both are gone, even by kill -9.
"""

import os
import signal
import sys
import threading

from supervisor import supervisord


def main() -> None:
    """Runs supervisord in the foreground."""
    if os.environ.pop("SLUICE_MESH_LEASH", "") == "1":
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    supervisord.main(sys.argv[1:])


def _stop_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
