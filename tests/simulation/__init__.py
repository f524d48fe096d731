"""A simulator of the queue: virtual clock, seeded chances, workers and leaders that fail.

``python -m simulation.nightly`` (from ``tests/``) plays many schedules; ``SEED=n`` replays one.
"""
