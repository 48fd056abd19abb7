"""The read model: runs as SQL tables, projected from the log."""
