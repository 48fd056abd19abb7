"""What runs inside the user's environment: the fork server, and the attempts that it forks.

They talk to the executor as `penstock_core.fork_server_protocol` describes.
"""
