"""Who may see and do what, and numbers as people read them."""
