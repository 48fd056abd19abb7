"""Write machine-learning pipelines as plain typed Python and run them anywhere."""
