from datetime import timedelta

import pytest
from pydantic import ValidationError

from st_controller.domain.workers import Patience
from st_controller.settings import Settings


def test_with_nothing_set_everything_is_embedded(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert settings.sqlalchemy_url == f"sqlite:///{tmp_path}/.st/controller/controller.db"
    assert settings.migrates_itself
    assert settings.is_loopback
    assert not settings.cookies_are_secure


def test_the_environment_configures(monkeypatch, tmp_path):
    monkeypatch.setenv("ST_DATABASE_URL", "postgresql+psycopg://u:hunter2@db/st")
    monkeypatch.setenv("ST_PUBLIC_URL", "https://st.example/")
    monkeypatch.setenv("ST_SESSION_HOURS", "2")
    settings = Settings()
    assert not settings.migrates_itself
    assert settings.cookies_are_secure
    assert settings.public_url == "https://st.example"
    assert settings.session_lifetime == timedelta(hours=2)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 70_000),
        ("public_url", "st.example"),
        ("object_store", "https://bucket"),
        ("database_url", "mysql://u:p@db/st"),
        ("redis_url", "localhost:6379"),
        ("log_level", "loud"),
        ("secret_key", "short"),
        ("max_body_bytes", 10),
        ("unknown", 1),
    ],
)
def test_what_makes_no_sense_is_refused(name, value):
    with pytest.raises(ValidationError) as refused:
        Settings(**{name: value})
    assert refused.value.errors()[0]["loc"] == (name,)


def test_workers_are_silent_after_three_beats_and_lost_after_25_seconds():
    patience = Settings().patience
    told = (patience.heartbeat, patience.silent_after, patience.lease_ttl, patience.offer_ttl)
    assert told == (5.0, 15.0, 25.0, 10.0)
    assert patience == Patience()


def test_patience_must_be_ordered():
    with pytest.raises(ValidationError, match="heartbeat_seconds < silent_after_seconds"):
        Settings(heartbeat_seconds=20)
