"""Dead letters: rejected events and unreadable messages."""
