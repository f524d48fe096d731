"""The file ``setup-token``, in which a controller without users tells how to make the first."""

import os

from st_controller.settings import Settings

FILE_NAME = "setup-token"


def write_setup_token(settings: Settings, token: str) -> None:
    """Write the token, readable by the owner only."""
    path = settings.data_dir / FILE_NAME
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")


def forget_setup_token(settings: Settings) -> None:
    """Remove the file; it is worth nothing after set-up."""
    (settings.data_dir / FILE_NAME).unlink(missing_ok=True)
