"""What is wrong with a body that is JSON by its grammar and yet cannot be read."""

import json
import sys

from st_shared.characters import leaves
from st_shared.protocol.problems import FieldProblem

BODY = "body"


def unreadable(body: bytes, cause: BaseException) -> FieldProblem:
    """The field that kept a body from being read, where one did, and why; ``cause`` is what came.

    Such are a number of more digits than Python reads, too many levels, and bytes that are no text.
    """
    if isinstance(cause, UnicodeDecodeError):
        return FieldProblem(field=BODY, message="is no text in UTF-8")
    try:
        return _number(body)
    except RecursionError:
        return FieldProblem(field=BODY, message="is nested too deeply to be read")


class _Digits(str):
    """A whole number that is too long to be read."""

    __slots__ = ()


def _whole(digits: str) -> int | _Digits:
    try:
        return int(digits)
    except ValueError:
        return _Digits(digits)


def _number(body: bytes) -> FieldProblem:
    most = sys.get_int_max_str_digits()
    for place, value in leaves(json.loads(body, parse_int=_whole)):
        if isinstance(value, _Digits):
            count = len(value.lstrip("-"))
            said = f"is a number of {count} digits; numbers have {most} at most"
            return FieldProblem(field=place or BODY, message=said)
    return FieldProblem(field=BODY, message="cannot be read")
