import hashlib

from st_shared.protocol.content import ContentFile, content_digest

A = ContentFile("a.png", 3, "0" * 64)
B = ContentFile("b/ü.txt", 12, "1" * 64)


def test_the_digest_is_the_documented_one_in_any_order():
    lines = f"a.png\0{3}\0{'0' * 64}\nb/ü.txt\0{12}\0{'1' * 64}\n"
    assert content_digest([B, A]) == hashlib.sha256(lines.encode()).hexdigest()


def test_every_part_counts():
    digests = {
        content_digest(files)
        for files in (
            [],
            [A],
            [A, B],
            [A._replace(path="a.pnh")],
            [A._replace(size=4)],
            [A._replace(sha256="2" * 64)],
        )
    }
    assert len(digests) == 6
