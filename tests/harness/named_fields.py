"""Whether a refusal names what its reader finds in the file or body that was sent."""


def stands_in(document: object, field: str, *, may_be_missing: bool = False) -> bool:
    """Whether a dotted field is in a document; the last part, if ``may_be_missing``, need not be.

    Keys that hold dots are found too.
    """
    if field == "":
        return False
    return _found(document, field.split("."), may_be_missing)


def _found(value: object, parts: list[str], may_be_missing: bool) -> bool:
    if not parts:
        return True
    if isinstance(value, list):
        head = parts[0]
        within = head.isdecimal() and int(head) < len(value)
        return within and _found(value[int(head)], parts[1:], may_be_missing)
    if not isinstance(value, dict):
        return False
    for count in range(1, len(parts) + 1):
        key = ".".join(parts[:count])
        if key in value:
            return _found(value[key], parts[count:], may_be_missing)
    return may_be_missing and len(parts) == 1
