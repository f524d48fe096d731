import os

import pytest

from st_controller.folder_lock import FolderInUseError, hold_folder


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path):
    with (
        hold_folder(tmp_path),
        pytest.raises(FolderInUseError, match=f"process {os.getpid()}.*--data"),
        hold_folder(tmp_path),
    ):
        pass


def test_it_is_free_afterwards(tmp_path):
    for _ in range(2):
        with hold_folder(tmp_path):
            pass
