"""Outbox relay, fan-out, server-sent events."""
