"""What is kept, for how long and where: archives of runs, the collection of artifacts, policies.

`run_index` knows all runs; `archiver` moves facts from the log to the store, and back; `deleting` removes runs; `roots`
finds what is named; `collector` sweeps what is not; `janitor` does all of this in rounds.
"""
