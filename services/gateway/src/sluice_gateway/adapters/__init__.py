"""Everything the gateway talks to: the neighbours, the configuration file, the event publisher."""
