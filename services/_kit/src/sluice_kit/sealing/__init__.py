"""Sealed text: encrypted so that destroying a key erases it everywhere (docs/decisions/0014-privacy-and-erasure.md)."""
