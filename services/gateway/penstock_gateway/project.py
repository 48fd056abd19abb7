"""The project that the gateway serves. There is one until projects can be created."""

PROJECT = "default"
