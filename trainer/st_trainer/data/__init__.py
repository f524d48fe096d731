"""Samples, captions, and the order in which they are seen."""
