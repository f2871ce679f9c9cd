"""ModerationService over gRPC: proto to domain and back, evidence kept and published on the way."""

from sluice_moderation.api.service import Limits, ModerationService

__all__ = ["Limits", "ModerationService"]
