"""What all tests share: hypothesis judges no example by its time, for machines are shared and noisy."""

from hypothesis import settings

settings.register_profile("sluice", deadline=None)
settings.load_profile("sluice")
