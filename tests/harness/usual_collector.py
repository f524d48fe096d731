"""Python's collector as it is: looking through all that a test process has loaded takes long."""


class UsualCollector:
    """Stands in for ``LongLived``, of which ``test_long_lived.py`` tells."""

    def begin(self) -> None:
        """Nothing."""

    def note(self, jobs: int) -> None:
        """Nothing."""

    def sweep(self) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
