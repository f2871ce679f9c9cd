"""The chassis of Sluice's services: what must be the same for the mesh to work."""
