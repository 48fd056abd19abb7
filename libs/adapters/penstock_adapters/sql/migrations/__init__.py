"""How the tables came to be, one file a step. A released step is never changed."""
