"""Arms and fires the ticks of schedules."""
