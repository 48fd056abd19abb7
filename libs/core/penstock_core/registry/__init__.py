"""The model registry: models, their versions, aliases, and gates that guard the aliases.

The state of a model is the fold of its facts, each of which has a revision in the model's log. `decide` returns the
facts that follow from a request, or the error why none does. All of it is pure: a writer whose revision is taken folds
the log again and decides again.
"""
