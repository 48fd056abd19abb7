"""What can go wrong with the read model; without SQLAlchemy, for those who only want to catch it.

PenstockError
├── DatabaseError   the database cannot be used; says why and what to do
│   └── Damaged     its file is no database, or not any more
├── Unwritable      a fact cannot be written: the fault lies in it, and the others can
└── Gap             a batch does not follow what the tables hold

A database that is away, busy or stopping is `errors.UnavailableError`.
"""

from __future__ import annotations

from penstock_core.errors import PenstockError


class DatabaseError(PenstockError):
    """The database of the read model cannot be used; the message says why and what to do."""


class DatabaseDamagedError(DatabaseError):
    """The file of the database is no database, or not any more."""


class UnwritableFactError(PenstockError):
    """A fact cannot be written: the fault lies in it, and the others can."""


class SequenceGapError(PenstockError):
    """The batch does not follow what the tables hold: go on from `last`."""

    def __init__(self, last: int) -> None:
        super().__init__(f"the tables hold the log up to {last}")
        self.last = last
