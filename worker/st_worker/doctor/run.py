"""All checks in their order; what one needs of another is not asked where that failed."""

from collections.abc import Callable, Iterator
from pathlib import Path

from st_worker.accelerators.registry import Found, find_devices
from st_worker.credential import Credential
from st_worker.doctor import controller, host
from st_worker.doctor.check import Finding, exit_code, fail, warn
from st_worker.errors import UsageError
from st_worker.folder import StateFolder


def examine(
    url: str | None, root: Path, find: Callable[[], Found] = lambda: find_devices(None)
) -> Iterator[Finding]:
    """Everything about this host, then about its way to the controller.

    ``url``: of the controller; none: the one that the worker in ``root`` has joined.
    """
    state, found = StateFolder(root), find()
    yield from host.accelerators(found)
    of_folder = list(host.folder(state))
    yield from of_folder
    if not exit_code(of_folder):
        yield from host.privacy(state)
        yield from host.disk_space(host.nearest(root))
        yield from host.disk_speed(host.nearest(root))
    yield from host.programs(found.probe.vendor)
    try:
        credential = Credential.load(state)
    except (UsageError, OSError) as error:
        yield fail("credential", str(error), "remove the file and join again with a token")
        credential = None
    yield from _way(url, credential)


def _way(url: str | None, credential: Credential | None) -> Iterator[Finding]:
    address = url or (credential.controller if credential else None)
    if address is None:
        mend = "st-worker doctor https://CONTROLLER"
        yield warn("reach", "no controller is known: this host has not joined yet", mend)
        return
    if credential and credential.controller != address:
        credential = None  # of another controller
    with controller.new_http(address) as http:
        reached = list(controller.reach(http))
        yield from reached
        if not exit_code(reached):
            yield from controller.stream(http)
            yield from controller.storage(http, credential)
