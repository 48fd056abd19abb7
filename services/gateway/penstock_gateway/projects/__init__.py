"""Projects: records and quotas."""
