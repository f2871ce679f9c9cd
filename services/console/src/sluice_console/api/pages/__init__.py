"""One module a page: what it asks for, and the template that shows it."""
