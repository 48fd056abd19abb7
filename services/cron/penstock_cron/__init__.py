"""The cron service: publishes an event for each tick of a cron trigger."""
