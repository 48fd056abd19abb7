"""Folds the facts of a run and decides what comes next."""
