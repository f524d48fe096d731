"""Which variables of an environment look like secrets: those that a job's script is not given."""

import re

_NAME = re.compile("TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE")
_ADDRESS_WITH_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")


def looks_secret(name: str, value: str) -> bool:
    """Whether the name or the value of a variable looks so."""
    return bool(_NAME.search(name.upper()) or _ADDRESS_WITH_PASSWORD.search(value))
