"""Processes that do not see the same folder send one another the shards that they have read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from st_trainer.together import Gather

ROUND_BYTES = 64 << 20
"""That all processes together send at a time, or else a shard each."""


def exchange(folder: Path, mine: Sequence[str], lacking: set[str], gather: Gather) -> None:
    """Bring the shards that are ``lacking`` into ``folder``.

    All processes call this together; of ``mine`` each sends what others lack.
    """
    wanted = gather(lacking)
    named = set().union(*wanted)
    rounds = _rounds(folder, [name for name in mine if name in named], ROUND_BYTES // len(wanted))
    while any(found := gather(next(rounds, {}))):
        for name, content in (pair for each in found for pair in each.items()):
            path = folder / name
            if name in lacking and not path.exists():
                aside = folder / f".{name}.{uuid4().hex}.partial"  # others may write the same
                aside.write_bytes(content)
                aside.replace(path)


def _rounds(folder: Path, names: Sequence[str], most: int) -> Iterator[dict[str, bytes]]:
    """The contents of ``names``, about ``most`` bytes at a time."""
    found: dict[str, bytes] = {}
    for name in names:
        found[name] = (folder / name).read_bytes()
        if sum(map(len, found.values())) >= most:
            yield found
            found = {}
    if found:
        yield found
