import pytest
from structlog.testing import capture_logs

from st_controller.auth.rate_limit import RateLimit


def limit(url):
    return RateLimit("test", 3, url)


@pytest.fixture
def here():
    made = limit(None)
    yield made
    made.close()


def test_so_many_tries_a_minute_and_no_more(here, clock):
    assert [here.allows("ann", clock()) for _ in range(4)] == [True, True, True, False]


def test_keys_do_not_count_for_each_other(here, clock):
    for _ in range(4):
        here.allows("ann", clock())
    assert here.allows("bob", clock())


def test_a_minute_later_it_begins_anew(here, clock):
    for _ in range(4):
        here.allows("ann", clock())
    clock.advance(60)
    assert here.allows("ann", clock())


def test_replicas_count_together(valkey_url, clock):
    first, second = limit(valkey_url), limit(valkey_url)
    answers = [replica.allows("ann", clock()) for replica in (first, second, first, second)]
    first.close(), second.close()
    assert answers == [True, True, True, False]


def test_without_redis_the_limit_still_holds_and_the_outage_is_logged_once(tmp_path, clock):
    away = limit(f"unix://{tmp_path}/nobody.sock")
    with capture_logs() as logs:
        answers = [away.allows("ann", clock()) for _ in range(4)]
    away.close()
    assert answers == [True, True, True, False]
    assert [entry["log_level"] for entry in logs] == ["warning"]
