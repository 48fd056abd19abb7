"""The compilation of pipelines: placeholders for values, records of calls, and conditions."""
