"""A plan as a picture for terminals: what lies where in the memory of an accelerator."""

from collections.abc import Iterator

from st_trainer.planning.accelerators import Accelerator
from st_trainer.planning.estimate import Estimate

WIDTH = 40
"""Cells of the picture."""
WORDS = {
    "base": "frozen weights",
    "adapter": "what is trained",
    "gradients": "gradients",
    "optimizer": "state of the optimiser",
    "average": "moving average",
    "buffers": "buffers of the strategy",
    "activations": "activations, at the peak",
    "text_encoders": "text encoders",
    "image_encoder": "image encoder",
    "vae": "VAE and other parts",
}
_FULL, _FREE, _OVER, _EDGE = "█", "·", "▒", "|"


def picture(estimate: Estimate, target: Accelerator | None = None) -> Iterator[str]:
    """One line a part, each beginning where the one before ends; the last has them together.

    The edge is what a run may take of ``target``; what lies beyond it does not fit. Without
    ``target`` the picture is as wide as the total.
    """
    room = target.usable if target else 0
    whole = max(estimate.total, room, 1)
    edge = round(room / whole * WIDTH) if room else None
    begin = 0
    for name, count in estimate.components.items():
        if count:
            yield _line(WORDS[name], count, _bar(begin, begin + count, whole, edge, " "))
            begin += count
    share = f" {estimate.total / room:.0%}" if room else ""
    yield _line("together", begin, _bar(0, begin, whole, edge, _FREE) + share)
    if estimate.start > begin:
        words = "whole, before it is spread"
        yield _line(words, estimate.start, _bar(0, estimate.start, whole, edge, " "))
    if estimate.host:
        each = ", of each process" if estimate.processes > 1 else ""
        yield f"  {'in the memory of the host':28} {size(estimate.host):>10}{each}"


def _line(words: str, count: int, bar: str) -> str:
    return f"  {words:28} {size(count):>10}  {bar}".rstrip()


def _bar(begin: int, end: int, whole: int, edge: int | None, rest: str) -> str:
    """Cells from ``begin`` to ``end`` bytes of ``whole``, at least one; ``rest`` in the others."""
    first = min(round(begin / whole * WIDTH), WIDTH - 1)
    last = max(first + 1, round(end / whole * WIDTH))
    cells = []
    for place in range(WIDTH):
        if first <= place < last:
            cells.append(_FULL if edge is None or place < edge else _OVER)
        else:
            cells.append(rest if edge is None or place < edge else " ")
    if edge is not None:
        cells.insert(edge, _EDGE)
    return "".join(cells)


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:,.2f} {unit}"
    return f"{count} B"
