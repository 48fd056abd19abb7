"""Whether the streams have everything that was stored in them, and the repair of the log of runs."""
