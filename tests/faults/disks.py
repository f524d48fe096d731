"""Small disks that can be filled: memory file systems, which root alone may mount."""

import errno
import os
import shutil
import subprocess
from pathlib import Path


class Disk:
    """A folder with ``megabytes`` of room."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        options = f"size={megabytes}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)

    def fill(self) -> None:
        """Take all the room there is."""
        block = bytes(1 << 20)
        filler = os.open(self.folder / "filler", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while block:
                try:
                    os.write(filler, block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    block = block[: len(block) // 2]
        finally:
            os.close(filler)

    def free(self) -> None:
        """Give the room back."""
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)


def keep(folder: Path) -> None:
    """Copy a disk's files beside it, where they stay."""
    shutil.copytree(folder, folder.with_name(f"{folder.name}-kept"), ignore=_sockets)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def may_mount() -> bool:
    """Whether this user may mount, tried out."""
    if os.geteuid() != 0:
        return False
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0
