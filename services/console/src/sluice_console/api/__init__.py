"""Pages, sessions and headers: everything that speaks HTTP."""
