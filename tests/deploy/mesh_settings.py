"""What the code itself says of environment names and ports; the deployment files are compared with this."""

import importlib

from pydantic_settings import BaseSettings

SERVICES = (
    "gateway",
    "inference",
    "redaction",
    "moderation",
    "feedback",
    "cost",
    "quality",
    "drift",
    "fairness",
    "insight",
    "console",
    "probes",
)
GRPC_SERVICES = tuple(s for s in SERVICES if s not in ("quality", "drift", "fairness", "console"))


def settings_class(service: str) -> type[BaseSettings]:
    """The one Settings class that the service's settings module defines."""
    module = importlib.import_module(f"sluice_{service}.settings")
    found = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, BaseSettings) and c.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{service} defines {len(found)} settings classes"
    return found[0]


def environment_names(service: str) -> set[str]:
    """Every environment variable the service reads."""
    cls = settings_class(service)
    prefix = cls.model_config.get("env_prefix", "")
    names = set()
    for name, field in cls.model_fields.items():
        alias = field.validation_alias
        choices = getattr(alias, "choices", [alias] if alias else [prefix + name])
        names |= {str(choice).upper() for choice in choices}
    return names | {f"SLUICE_{other.upper()}_TARGET" for other in GRPC_SERVICES}


def expected_port(service: str, kind: str) -> int:
    from sluice_kit.addresses import DEFAULT_PORTS

    key = {"grpc": service, "http": f"{service}_http", "web": f"{service}_web", "metrics": f"metrics_{service}"}[kind]
    return DEFAULT_PORTS["console" if key == "console_http" else key]
