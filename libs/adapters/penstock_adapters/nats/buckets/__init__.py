"""The key-value buckets of Penstock."""
