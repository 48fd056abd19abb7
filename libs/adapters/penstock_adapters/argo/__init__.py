"""The Argo executor: each attempt is a small Workflow on Kubernetes. See `penstock_core.ports.Executor`.

AttemptRequested ──manifest──▶ Workflow ──Argo──▶ pod: `python -m penstock.runner.pod` ──NATS──▶ the executor service
                                  └──────informer (list, watch)──▶ verdicts: why the cluster ended an attempt
"""
