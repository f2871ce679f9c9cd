"""Live fairness of the mesh's filters: what they decide by the groups of people that texts mention, never by persons."""
