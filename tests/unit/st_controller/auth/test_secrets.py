import pytest

from st_controller.auth.secrets import (
    ALPHABET,
    SecretKind,
    digest,
    kind_of,
    new_secret,
    shown_prefix,
)


@pytest.mark.parametrize("kind", SecretKind)
def test_a_fresh_secret_tells_its_kind(kind):
    secret = new_secret(kind)
    assert secret.startswith(f"{kind.value}_")
    assert kind_of(secret) is kind


def test_secrets_differ():
    assert len({new_secret(SecretKind.API_KEY) for _ in range(100)}) == 100


def test_every_single_wrong_character_is_noticed():
    secret = new_secret(SecretKind.API_KEY)
    for place in range(3, len(secret)):
        other = ALPHABET[(ALPHABET.index(secret[place]) + 1) % len(ALPHABET)]
        assert kind_of(secret[:place] + other + secret[place + 1 :]) is None


def test_another_kind_of_secret_is_not_taken_for_this_one():
    key = new_secret(SecretKind.API_KEY)
    assert kind_of("stw" + key.removeprefix("st")) is None


@pytest.mark.parametrize("text", ["", "st_", "st", "sk_abc", "st_" + "é" * 38, "st_" + "a" * 37])
def test_what_is_no_secret_is_told_so(text):
    assert kind_of(text) is None


def test_the_shown_prefix_keeps_the_secret_secret():
    secret = new_secret(SecretKind.JOIN_TOKEN)
    assert secret.startswith(shown_prefix(secret))
    assert len(shown_prefix(secret)) == len("stj_") + 6


def test_the_digest_is_sha256():
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
