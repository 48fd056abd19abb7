"""The runner in a pod: runs one attempt, with the fork server of this environment, and reports it over NATS.

    python -P -m penstock.runner.pod

It needs `penstock` and nats-py. The messages are those of `penstock_core.pod_protocol`.
"""
