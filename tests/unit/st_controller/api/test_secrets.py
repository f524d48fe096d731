"""``/v1/secrets``: values go in and never come out."""

VALUE = "hf_never_to_be_seen"


def test_a_value_goes_in_and_never_comes_out(app_client, admin_headers, caplog):
    def call(method, path, **body):
        return app_client.request(method, f"/v1/{path}", json=body or None, headers=admin_headers)

    replies = [
        call("PUT", "secrets/hub", value=VALUE),
        call("PUT", "shared-secrets/hub", value=VALUE),
        call("GET", "secrets"),
        call("GET", "audit"),
    ]
    assert [reply.status_code for reply in replies] == [200] * 4
    assert [(i["name"], i["shared"]) for i in replies[2].json()["items"]] == [
        ("hub", True),
        ("hub", False),
    ]
    refused = [
        call("PUT", "secrets/hub", value=VALUE, more=1),
        call("PUT", "secrets/hub", value=VALUE + "x" * 20_000),
        call("PUT", "secrets/hub", value=VALUE[:7]),
        call("PUT", "secrets/Hub", value=VALUE),
        call("PUT", "secrets/hub", value=[VALUE]),
    ]
    assert [reply.status_code for reply in refused] == [422] * 5
    for reply in replies + refused:
        assert VALUE[:7] not in reply.text
    assert VALUE[:7] not in caplog.text
    assert call("DELETE", "secrets/hub").status_code == 204
    assert call("DELETE", "shared-secrets/hub").status_code == 204
    assert call("DELETE", "secrets/hub").status_code == 404
