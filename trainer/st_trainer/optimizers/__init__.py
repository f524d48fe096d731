"""Optimisers by name, and learning rates by step."""
