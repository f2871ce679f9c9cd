"""The stories of requests: their events without texts, in a file of their own."""
