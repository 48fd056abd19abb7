"""The model registry: named models, their versions, aliases that move, and gates that guard the moves.

A model's state is the fold of its facts, which lie one after another on numbered places; `decide` says which facts
follow from a wish, or why none does. All of it is pure: whoever appends at a place that was taken meanwhile folds what
is there and decides anew.
"""
