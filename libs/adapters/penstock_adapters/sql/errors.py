"""The errors of the read model, in a module that does not import SQLAlchemy. See `penstock_adapters.errors`.

A database that is unavailable, busy or stopping raises `UnavailableError`.
"""

from __future__ import annotations

from penstock_core.errors import PenstockError


class DatabaseError(PenstockError):
    """The database of the read model cannot be used, for the reason in the message."""


class DatabaseDamagedError(DatabaseError):
    """The file of the database is damaged, or not a database."""


class UnwritableFactError(PenstockError):
    """One fact cannot be written; others can."""


class SequenceGapError(PenstockError):
    """The batch does not follow the facts in the tables: continue from `last`."""

    def __init__(self, last: int) -> None:
        super().__init__(f"the tables have the log up to {last}")
        self.last = last
