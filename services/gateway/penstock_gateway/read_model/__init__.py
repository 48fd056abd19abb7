"""Read_model."""
