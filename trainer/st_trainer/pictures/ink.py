"""Colours and letters that the pictures share."""

from PIL import ImageFont

PAPER = (255, 255, 255)
INK = (31, 35, 40)
MUTED = (101, 109, 118)
RULE = (225, 228, 232)
ACCENT = (9, 105, 218)
ACCENT_PALE = (169, 205, 247)

Font = ImageFont.FreeTypeFont


def font(size: int) -> Font:
    """The letters that Pillow carries, ``size`` pixels high; the same on every machine.

    Raises:
        OSError: this Pillow was built without FreeType.
    """
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise OSError("Pillow was built without FreeType: install a wheel from PyPI")
    return found


def wrapped(text: str, letters: Font, width: float, most_lines: int) -> list[str]:
    """``text`` in lines at most ``width`` pixels wide; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    rest = text.split()
    while rest and len(lines) < most_lines:
        count = len(rest)
        while count > 1 and letters.getlength(" ".join(rest[:count])) > width:
            count -= 1
        lines.append(" ".join(rest[:count]))
        rest = rest[count:]
    if rest:
        lines[-1] += " …"
    return [_cut(line, letters, width) for line in lines]


def _cut(line: str, letters: Font, width: float) -> str:
    if letters.getlength(line) <= width:
        return line
    while line and letters.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip(' …')}…"
