"""The read model: runs as tables in SQLite or PostgreSQL, projected from the log.

The log is the source of truth; everything here can be deleted and rebuilt. Importing this package costs nothing: its
modules import SQLAlchemy, which takes a quarter of a second, so services import them in a thread, late.
"""
