"""The domain of Penstock: facts, the run state machine and its policies.

Standard library only; no I/O, no asyncio, no clock, no randomness. Time and identity come in as arguments.
"""
