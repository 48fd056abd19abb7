"""The scheduler service: folds the facts of runs and appends the facts that follow."""
