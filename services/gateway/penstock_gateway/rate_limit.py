"""A limit on the rate of requests: a token bucket. Times are arguments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """Accepts `rate` requests per second on average, and as many at once, but at least one.

    Attributes:
        left: requests that are accepted at once, at time `at`.
    """

    rate: float
    left: float
    at: float

    @classmethod
    def full(cls, rate: float, now: float) -> TokenBucket:
        """Return a bucket that was not used yet."""
        return cls(rate, max(rate, 1.0), now)

    def take(self, now: float) -> float:
        """Accept a request and return 0, or return the seconds until the next one is accepted."""
        self.left = min(max(self.rate, 1.0), self.left + (now - self.at) * self.rate)
        self.at = now
        if self.left < 1:
            return (1 - self.left) / self.rate
        self.left -= 1
        return 0.0
