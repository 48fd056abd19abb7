"""The web console: its files, and sessions of browsers."""
