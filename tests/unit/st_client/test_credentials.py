import json

import pytest

from st_client.credentials import Credential, Credentials
from st_client.errors import BadInputError, ForbiddenError

ONE = Credential("http://one:1", "key-1", "ada")
TWO = Credential("http://two:2", "key-2")


@pytest.fixture
def environment(tmp_path):
    return {"ST_CONFIG_HOME": str(tmp_path / "st")}


def test_the_last_one_kept_is_current_and_the_others_stay(environment):
    credentials = Credentials(environment)
    credentials.keep(ONE)
    credentials.keep(TWO)
    assert credentials.current() == TWO
    assert credentials.find(ONE.url) == ONE
    assert credentials.find("http://three") is None


def test_the_file_is_private(environment):
    credentials = Credentials(environment)
    credentials.keep(ONE)
    credentials.path.chmod(0o644)
    credentials.keep(TWO)
    assert credentials.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in credentials.path.parent.iterdir()] == ["credentials.json"]


def test_variables_go_before_the_file(environment):
    Credentials(environment).keep(ONE)
    Credentials(environment).keep(TWO)
    assert Credentials(environment | {"ST_URL": "http://one:1/"}).current() == ONE
    assert Credentials(environment | {"ST_API_KEY": "k"}).current() == Credential(TWO.url, "k")
    both = Credentials(environment | {"ST_URL": "http://x", "ST_API_KEY": "k"})
    assert both.current() == Credential("http://x", "k")


def test_not_signed_in_says_how_to(environment):
    with pytest.raises(ForbiddenError) as caught:
        Credentials(environment).current()
    assert "st login" in caught.value.hint
    with pytest.raises(ForbiddenError, match="http://x"):
        Credentials(environment | {"ST_URL": "http://x"}).current()
    with pytest.raises(ForbiddenError):
        Credentials(environment | {"ST_API_KEY": "k"}).current()


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"version": 1})])
def test_a_damaged_file_is_named(environment, content):
    credentials = Credentials(environment)
    credentials.keep(ONE)
    credentials.path.write_text(content)
    with pytest.raises(BadInputError, match=r"credentials\.json"):
        credentials.current()


def test_the_home_folder_is_the_default(tmp_path):
    assert Credentials({"HOME": str(tmp_path)}).path == tmp_path / ".config/st/credentials.json"
    assert Credentials({"XDG_CONFIG_HOME": "/x"}).path.as_posix() == "/x/st/credentials.json"
