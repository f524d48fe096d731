import threading

import pytest

from st_controller.secret_key import UnsafeSecretError, derive, load_secret_key
from st_controller.settings import Settings


def test_a_key_is_made_once_for_the_owner_alone(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")
    key = load_secret_key(settings)
    assert len(key) == 32
    assert load_secret_key(settings) == key
    assert (tmp_path / "data" / "secret.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret.key"]


def test_processes_that_start_together_agree(tmp_path):
    settings = Settings(data_dir=tmp_path)
    keys = []
    threads = [
        threading.Thread(target=lambda: keys.append(load_secret_key(settings))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path):
    settings = Settings(data_dir=tmp_path)
    load_secret_key(settings)
    (tmp_path / "secret.key").chmod(0o644)
    with pytest.raises(UnsafeSecretError, match="chmod 600"):
        load_secret_key(settings)


def test_a_configured_key_wins_and_leaves_no_file(tmp_path):
    settings = Settings(data_dir=tmp_path, secret_key="k" * 40)
    assert load_secret_key(settings) == b"k" * 40
    assert list(tmp_path.iterdir()) == []


def test_purposes_get_different_keys():
    assert derive(b"k" * 32, "objects") != derive(b"k" * 32, "other")
