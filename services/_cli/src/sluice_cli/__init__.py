"""The `sluice` command: runs the mesh on one machine, shows its events, and demonstrates it."""
