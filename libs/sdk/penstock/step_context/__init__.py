"""`context()` for the code of steps: logging, checkpoints and registration of models."""
