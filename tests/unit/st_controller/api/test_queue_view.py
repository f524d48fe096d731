from st_controller.services import explaining


def tenants_of(client, headers):
    found = client.get("/v1/queue", headers=headers).json()["tenants"]
    return {tenant["path"]: tenant for tenant in found}


def test_a_share_is_shown_before_its_tenant_has_submitted_anything(app_client, admin_headers):
    share = {"weight": 3, "max_jobs": 2}
    app_client.put("/v1/queue/shares/lab/vision", json=share, headers=admin_headers)

    found = tenants_of(app_client, admin_headers)

    assert found["lab/vision"]["weight"] == 3
    assert found["lab/vision"]["max_jobs"] == 2
    assert found["lab"]["weight"] == 1
    assert not found["lab/vision"]["active"]


def test_a_change_of_a_share_leaves_what_it_does_not_name(app_client, admin_headers):
    def change(**share):
        reply = app_client.patch("/v1/queue/shares/lab", json=share, headers=admin_headers)
        found = reply.json()
        return found["weight"], found["max_jobs"], found["max_slots"]

    assert change(max_jobs=2, max_slots=8) == (1, 2, 8)
    assert change(weight=3) == (3, 2, 8)
    assert change(max_jobs=None) == (3, None, 8)
    assert change() == (3, None, 8)
    found = tenants_of(app_client, admin_headers)["lab"]
    assert (found["weight"], found["max_jobs"], found["max_slots"]) == (3, None, 8)
    body = {"weight": 0}
    refused = app_client.patch("/v1/queue/shares/lab", json=body, headers=admin_headers)
    assert refused.status_code == 422


def test_a_share_that_is_removed_leaves_nothing_behind(app_client, admin_headers, clock):
    app_client.put("/v1/queue/shares/lab", json={"weight": 3}, headers=admin_headers)
    assert "lab" in tenants_of(app_client, admin_headers)

    app_client.delete("/v1/queue/shares/lab", headers=admin_headers)
    clock.advance(explaining.AGE.total_seconds() + 1)

    assert set(tenants_of(app_client, admin_headers)) == {""}


def test_whoever_waits_is_active_and_so_is_all_above(app_client, admin_headers):
    job = {"name": "waits", "noop": {"seconds": 1}}
    assert app_client.post("/v1/jobs", json=job, headers=admin_headers).status_code == 201

    found = tenants_of(app_client, admin_headers)

    assert {path for path, tenant in found.items() if tenant["active"]} == {
        "",
        "default",
        "default/default",
        "default/default/root",
    }
