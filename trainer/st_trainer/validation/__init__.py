"""Validation: what is drawn and measured while training goes on, which it never changes."""
