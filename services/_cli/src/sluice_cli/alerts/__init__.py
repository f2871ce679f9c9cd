"""`sluice alerts`: what fires, who is kept quiet about it, and who has taken it on."""
