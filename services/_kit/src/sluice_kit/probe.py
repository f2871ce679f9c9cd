"""`sluice-probe host:port`: exit code 0 when /healthz there says serving. For containers, which have no curl."""

import http.client
import sys


def main() -> None:
    """Ask once, for at most two seconds."""
    if len(sys.argv) != 2 or ":" not in sys.argv[1]:
        raise SystemExit("usage: sluice-probe HOST:PORT")
    host, port = sys.argv[1].rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    except OSError as error:
        raise SystemExit(f"{sys.argv[1]} does not answer: {error.strerror or error}") from None
    if response.status != 200:
        raise SystemExit(body)
