"""Images of environments: built by BuildKit or a Docker-compatible engine, pushed to a registry, named by digest."""
