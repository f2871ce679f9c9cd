"""Records that consumers gave up: seen, understood, and put back."""
