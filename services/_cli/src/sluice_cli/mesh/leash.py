"""supervisord as this product runs it: on a leash, and with its ports kept from others.

`python -m sluice_cli.mesh.leash -c FILE` is supervisord itself, with two additions told by the environment:

* SLUICE_MESH_LEASH=1: standard input is a pipe from the foreground command. End of file there means that the terminal, the
  command or both are gone, even by kill -9; then supervisord ends, with everything it runs.
* SLUICE_MESH_PORTS: ports to hold for the services. The default gRPC ports lie where Linux takes ports for outgoing connections:
  without this, a connection of any program (also of the mesh itself) can sit on a service's port just when it starts.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable

from supervisor import supervisord


def main() -> None:
    """Runs supervisord in the foreground."""
    # Popped: the processes it starts have no use for them.
    if os.environ.pop("SLUICE_MESH_LEASH", "") == "1":
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    held = hold(int(port) for port in os.environ.pop("SLUICE_MESH_PORTS", "").split(",") if port)
    supervisord.main(sys.argv[1:])
    del held


def _stop_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def hold(ports: Iterable[int]) -> list[socket.socket]:
    """Sockets that are bound to the ports and never listen: Linux gives such a port to no outgoing connection.

    A server with SO_REUSEADDR (all of ours) can still listen there, as nobody else does. Held as long as the sockets are kept.
    """
    sockets = []
    for port in ports if sys.platform == "linux" else ():
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", port))
        except OSError:  # taken since it was looked at; the service that needs it will say so, and try again
            holder.close()
            continue
        sockets.append(holder)
    return sockets


if __name__ == "__main__":
    main()
