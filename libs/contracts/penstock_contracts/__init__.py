"""Wire models of Penstock: the events' envelope and codec, commands, API bodies and subject names."""
