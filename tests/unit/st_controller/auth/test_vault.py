import sys

import pytest

from st_controller.auth.vault import KeyCommand, LocalKey, Sealed, SealError, Vault

KEY = LocalKey(b"k" * 32)
VALUE = b"hf_something\nsecret"


@pytest.fixture
def command(tmp_path):
    """A key service of one file: it turns the bytes around."""
    script = tmp_path / "kms.py"
    script.write_text(
        "import base64, sys\n"
        "assert sys.argv[1] in {'wrap', 'unwrap'}\n"
        "given = base64.b64decode(sys.stdin.read())\n"
        "print(base64.b64encode(given[::-1]).decode())\n"
    )
    return KeyCommand([sys.executable, "-S", str(script)])


def test_a_value_comes_back_and_what_is_stored_does_not_hold_it():
    vault = Vault(lambda: [KEY])
    sealed = vault.seal(VALUE, "sec_1")
    assert vault.open(sealed, "sec_1") == VALUE
    assert VALUE not in sealed.box + sealed.wrapped_key
    again = vault.seal(VALUE, "sec_1")
    assert (again.box, again.wrapped_key) != (sealed.box, sealed.wrapped_key)


def test_a_value_does_not_open_in_anothers_place_or_when_it_was_changed():
    vault = Vault(lambda: [KEY])
    sealed = vault.seal(VALUE, "sec_1")
    with pytest.raises(SealError, match="another's"):
        vault.open(sealed, "sec_2")
    for box in (sealed.box[:-1] + bytes([sealed.box[-1] ^ 1]), sealed.box[:5], b""):
        with pytest.raises(SealError, match="damaged"):
            vault.open(Sealed(sealed.key_id, sealed.wrapped_key, box), "sec_1")


def test_another_key_says_what_is_missing():
    sealed = Vault(lambda: [KEY]).seal(VALUE, "sec_1")
    with pytest.raises(SealError, match="ST_SECRETS_KEY"):
        Vault(lambda: [LocalKey(b"o" * 32)]).open(sealed, "sec_1")


def test_a_key_is_exchanged_without_touching_values():
    sealed = Vault(lambda: [KEY]).seal(VALUE, "sec_1")
    keys = [LocalKey(b"n" * 32)]
    vault = Vault(lambda: keys)
    with pytest.raises(SealError, match="ST_SECRETS_FORMER_KEYS"):
        vault.rewrap(sealed)
    keys.append(KEY)  # looked for again where it is needed
    assert vault.open(sealed, "sec_1") == VALUE
    moved = vault.rewrap(sealed)
    assert (moved.box, moved.key_id) == (sealed.box, keys[0].id)
    del keys[1]
    assert vault.open(moved, "sec_1") == VALUE


def test_a_key_service_is_asked_by_a_command(command):
    vault = Vault(lambda: [command])
    sealed = vault.seal(VALUE, "sec_1")
    assert vault.open(sealed, "sec_1") == VALUE
    assert sealed.key_id == "command"


@pytest.mark.parametrize("command", [["/does/not/exist"], ["false"], ["true"]])
def test_a_key_service_that_fails_is_told_of(command):
    with pytest.raises(SealError, match="the key command"):
        Vault(lambda: [KeyCommand(command)]).seal(VALUE, "sec_1")


def test_a_key_shows_nothing_of_itself():
    assert "kkk" not in repr(KEY)
