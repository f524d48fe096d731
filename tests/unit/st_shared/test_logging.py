from st_shared.logging import hide_secrets


def test_values_of_secret_keys_never_show() -> None:
    event = {"event": "joined", "join_token": "stj_x", "Authorization": "Bearer y", "worker": "w"}

    shown = hide_secrets(None, "info", event)

    assert shown["worker"] == "w"
    assert {shown["join_token"], shown["Authorization"]} == {"[hidden]"}
