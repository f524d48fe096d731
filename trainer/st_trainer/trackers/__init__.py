"""Trackers: services and files that metrics and samples are sent to."""
