"""The read model of the live metrics: merges what partitions measured, answers questions, pushes what changes."""
