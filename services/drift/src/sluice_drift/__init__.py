"""Live drift of what goes into models and comes out, against a pinned reference, with a stated false-alarm rate."""
