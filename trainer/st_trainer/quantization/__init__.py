"""Frozen weights in fewer bits: one registry of formats, libraries and devices."""
