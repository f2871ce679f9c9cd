"""Addresses of machines: IPv4, IPv6, MAC."""

import ipaddress

from presidio_analyzer.predefined_recognizers import MacAddressRecognizer

from .context import Context, called_otherwise
from .presidio_bridge import from_presidio
from .recognizer import Check, Pattern, Recognizer

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"(?<![0-9A-Za-z.\-])(?:{_OCTET}\.){{3}}{_OCTET}(?![0-9A-Za-z]|\.[0-9]|-[0-9A-Za-z])"
# Presidio's pattern for IPv6 has 15 alternatives; one run of hexadecimal groups and Python's own parser say the same.
_IPV6 = r"(?<![0-9A-Za-z:.])(?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{0,34}:)[0-9A-Fa-f:]{3,39}(?:(?<=:)[0-9]{1,3}(?:\.[0-9]{1,3}){3})?(?:%[A-Za-z0-9]{1,12})?(?![0-9A-Za-z:])"


_EVERYBODYS = frozenset(["0.0.0.0", "127.0.0.1", "255.255.255.255"])  # noqa: S104  # recognised, not bound to


def _ipv4(value: str) -> bool | None:
    """False for what is no machine in particular."""
    return False if value in _EVERYBODYS else None


def _ipv6(value: str) -> bool:
    try:
        parsed = ipaddress.IPv6Address(value.partition("%")[0])
    except ValueError:
        return False
    # "::" and "::1" are everybody's; "a::b" is C++ or Rust far more often than a machine.
    return (
        not (parsed.is_unspecified or parsed.is_loopback) and len(value) >= 6 and any(sign.isdigit() for sign in value)
    )


def networks() -> list[Recognizer]:
    """Recognizers of IP_ADDRESS and MAC_ADDRESS."""
    return [
        Recognizer(
            "IpRecognizer",
            "IP_ADDRESS",
            [
                Pattern.of("IPv4", _IPV4, 0.6, check=Check("not everybody's", _ipv4)),
                Pattern.of("IPv6", _IPV6, 0.6, check=Check("parses", _ipv6)),
            ],
            context=Context(["ip", "ipv4", "ipv6", "ip address", "host", "server", "subnet", "gateway"]),
            veto=lambda text, start, _: called_otherwise(text, start, None),
        ),
        from_presidio(MacAddressRecognizer(), "not broadcast", needs_context=False),
    ]
