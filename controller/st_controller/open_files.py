"""How many files and sockets this process may have open."""

import resource

MOST = 1_048_576
"""Where the system sets no limit, one that every system takes."""


def allow_all() -> int:
    """Raise the soft limit as far as the hard one lets us; what it is then.

    The soft one is 1,024 on many systems, for the sake of programs that use ``select``. Every
    worker takes two sockets.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= most:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ValueError, OSError):  # a container may forbid what its limits allow
        return soft
    return most
