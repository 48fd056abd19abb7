"""The run state machine: folds the facts of a run and decides which facts follow.

Theory of operation. A run is its log: a sequence of facts that are appended and never changed. Each fact has a subject
in the log, and the log accepts one fact a subject (append-once). Scheduler replicas hold no other authority than the
log:

    state = fold(run_id, plan, facts)     evolve   state x fact  -> state      what happened
    facts = decide(state)                 decide   state         -> facts      what follows
    for effect in state.outbox: ...       effects                              what to do outside the log

A replica folds the facts it reads, appends what `decide` returns, folds what was accepted, and repeats until nothing
follows. Then it carries out the effects and acknowledges. If the log refuses a fact, another replica has decided: the
run is folded from the log again. `decide` reads nothing but the state: no clock, no settings, no randomness. Time
enters as `ClockReached` facts, and platform limits are recorded in `RunRequested.limited_pools`. So all replicas decide
alike, and any order of deliveries leads to the same outcome.

A step moves through the statuses of one transition table, `state.TRANSITIONS`, from which docs/run-states.md is
generated. What each module owns:

    state             the statuses, the transition table, `StepState`, `RunState`
    plan              the graph of a pipeline version, computed once
    evolve            folds one fact; uses `transitions` (moves, dependents, items), `cancellation` (stops, timers)
    decide            next facts; uses `mapped_steps` (windows, items), `suspension` (waits), `value_resolution`
                      (inputs), `retry` (another attempt or not), `run_outcome`
    effects           slots, admission, events, child runs, kills, model registrations, as data
    child_runs        requests of child runs, and what their end means for the waiting step
    resume            which results a resumed run reuses
    explain           one sentence about each step; uses `wait_reasons`
    machine           what schedulers, executors and tests import

Steps about which something is to be decided are in `state.frontier`. Every function costs time proportional to what
changed, not to the size of the run.
"""
