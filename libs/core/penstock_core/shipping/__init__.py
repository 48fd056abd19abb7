"""Ships what an attempt writes: output, parameters, metrics, progress and checkpoints, from its files to the platform.

    files of an attempt ──Tail──▶ entries, points ──Shipper──▶ Outbox: messages for LOGS and METRICS, stored artifacts
                                                                 └─ MessagePublisher, CommitPublisher

The recorder of the SDK (`penstock.runner.recorder`) writes the files. The parent of the attempt polls a `Shipper`: the
process executor for its children, and the runner of a pod for itself. Needs the standard library only; `publisher` and
`commits` run on asyncio and get what sends their messages as a callable.
"""
