"""The contract between controller, worker, trainer and client: no I/O beyond small helpers."""

__version__ = "0.1.0"
