"""Servers that the controller brings along when none is configured."""
