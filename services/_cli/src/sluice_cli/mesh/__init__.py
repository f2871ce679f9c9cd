"""The mesh as processes on one machine: what runs, on which ports, with which broker, under which supervisor."""
