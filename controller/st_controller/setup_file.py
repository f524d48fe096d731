"""The file ``setup-token``, in which a controller without users tells how to make the first."""

from st_controller.settings import Settings
from st_shared.durable import write_whole

FILE_NAME = "setup-token"


def write_setup_token(settings: Settings, token: str) -> None:
    """Write the token, readable by the owner only."""
    write_whole(settings.data_dir / FILE_NAME, token + "\n")


def forget_setup_token(settings: Settings) -> None:
    """Remove the file; it is worth nothing after set-up."""
    (settings.data_dir / FILE_NAME).unlink(missing_ok=True)
