"""Register outputs of finished steps as model versions."""
