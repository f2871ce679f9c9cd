"""A demonstration: real conversations through the running mesh, and what the mesh itself says it measured."""
