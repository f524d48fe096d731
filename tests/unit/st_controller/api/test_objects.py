"""What a browser is told of the objects of a folder store."""

import io

import pytest


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("step-2-000.mp4", "video/mp4"),
        ("step-2-000.wav", "audio/wav"),
        ("step-2.png", "image/png"),
        ("page.html", "application/octet-stream"),
        ("picture.svg", "application/octet-stream"),
    ],
)
def test_samples_are_served_as_what_they_are_in_ranges_and_nothing_can_run(app_client, name, kind):
    objects = app_client.app.state.platform.objects
    objects.put(f"samples/{name}", io.BytesIO(b"0123456789"))
    url = objects.sign_download(f"samples/{name}", expires_in=60)
    whole = app_client.get(url)
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert (whole.headers["content-type"], whole.headers["accept-ranges"]) == (kind, "bytes")
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = app_client.get(url, headers={"Range": "bytes=4-6"})
    assert (part.status_code, part.content) == (206, b"456")
    assert part.headers["content-range"] == "bytes 4-6/10"
