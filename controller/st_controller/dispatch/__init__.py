"""The scheduler's loop, the leader lease, expiry."""
