"""Who is told of alerts, from a YAML file, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator
from sluice_kit.configuration import ConfigurationModel, ConfigurationRefused, document, read_source
from standardwebhooks.webhooks import Webhook

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=2000)]


class Receiver(ConfigurationModel):
    """One receiver."""

    receiver: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    kind: Literal["webhook", "alertmanager"]
    url: Url
    """Of a webhook the whole address; of an Alertmanager its root, such as `http://alertmanager:9093`."""
    secret_file: str | None = None
    """File with the webhook's secret, `whsec_<base64>`."""
    severities: Annotated[tuple[Literal["info", "warning", "critical"], ...], Field(min_length=1)] = (
        "info", "warning", "critical",
    )  # fmt: skip
    rules: tuple[str, ...] = ()
    """Only these rules; empty means all."""

    @model_validator(mode="after")
    def _secret_of_webhooks(self) -> Receiver:
        if (self.kind == "webhook") is (self.secret_file is None):
            raise ValueError("a webhook needs secret_file, which an alertmanager has not")
        return self

    def wants(self, *, rule: str, severity: str) -> bool:
        """True when this receiver is told. An alert without a severity (another service's) goes to everybody."""
        return (not self.rules or rule in self.rules) and (not severity or severity in self.severities)


class ReceiversFile(ConfigurationModel):
    """The file."""

    receivers: Annotated[tuple[Receiver, ...], Field(max_length=50)] = ()


def read_receivers(path: Path | None) -> tuple[Receiver, ...]:
    """All receivers; none without a file. Raises ConfigurationRefused, also for a secret that cannot be used."""
    if path is None:
        return ()
    found = document(read_source(path), ReceiversFile)
    mistakes = []
    names: set[str] = set()
    for number, one in enumerate(found.value.receivers):
        if one.receiver in names:
            mistakes.append(found.mistake(f"receiver {one.receiver} stands here twice", at=("receivers", number)))
        names.add(one.receiver)
        if one.secret_file is not None and (reason := _unusable(one.secret_file)):
            mistakes.append(found.mistake(reason, at=("receivers", number, "secret_file")))
    if mistakes:
        raise ConfigurationRefused(mistakes)
    return found.value.receivers


def signer(secret_file: str) -> Webhook:
    """Signs as the Standard Webhooks specification says. Raises OSError, ValueError."""
    return Webhook(Path(secret_file).read_text(encoding="ascii").strip())


def _unusable(secret_file: str) -> str:
    try:
        signer(secret_file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except Exception:  # whatever the library says may hold the secret
        return "holds no secret of the form whsec_<base64>"
    return ""
