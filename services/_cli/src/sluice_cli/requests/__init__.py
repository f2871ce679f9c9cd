"""`sluice requests`: finds requests, and tells the story of one, from what insight has read."""
