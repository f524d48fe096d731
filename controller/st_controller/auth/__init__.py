"""Passwords, sessions, keys, worker credentials."""
