from st_controller.auth import passwords


def test_the_right_password_and_only_that_opens():
    stored = passwords.hash_password("correct horse battery")
    assert passwords.verify_password(stored, "correct horse battery")
    assert not passwords.verify_password(stored, "correct horse batterz")


def test_hashes_are_argon2id_and_salted():
    first, second = (passwords.hash_password("correct horse battery") for _ in range(2))
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second


def test_nobody_has_no_password_not_even_the_one_that_is_compared():
    assert not passwords.verify_password(None, "the password of nobody")
    assert not passwords.verify_password(passwords.UNUSABLE, "the password of nobody")


def test_an_unknown_user_costs_a_verification(monkeypatch):
    seen = []

    class Spy:
        def __init__(self, hasher):
            self.hash = hasher.hash
            self.verify = lambda *given: seen.append(given) or hasher.verify(*given)

    monkeypatch.setattr(passwords, "_hasher", Spy(passwords._hasher))
    passwords.verify_password(None, "anything at all")
    assert len(seen) == 1
    assert seen[0][0].startswith("$argon2id$")


def test_a_damaged_hash_opens_nothing():
    assert not passwords.verify_password("$argon2id$broken", "anything at all")


def test_weaker_parameters_are_noticed():
    from argon2 import PasswordHasher

    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x")
    assert passwords.needs_rehash(weak)
    assert not passwords.needs_rehash(passwords.hash_password("x"))
