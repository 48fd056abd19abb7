"""Retention: archives of runs, deletion by policies, and garbage collection of artifacts.

`run_index` lists all runs; `archiver` moves facts from the log to the store, and back; `deleter` deletes runs; `roots`
finds the referenced artifacts; `collector` removes the unreferenced ones; `janitor` does all of this in rounds.
"""
