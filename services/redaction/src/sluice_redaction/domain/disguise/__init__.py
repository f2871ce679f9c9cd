"""Seeing through disguise: views of a text in which hidden values stand plainly, with the way back to the text."""

from .markup import joint
from .seeing import find
from .views import Edit, View

__all__ = ["Edit", "View", "find", "joint"]
