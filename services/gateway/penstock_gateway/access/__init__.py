"""Who acts: principals and named tokens."""
