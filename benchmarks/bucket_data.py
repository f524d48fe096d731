"""Training on pictures in a bucket, with a cold and with a warm local cache, against a folder.

python benchmarks/bucket_data.py [--quick] [--json PATH]

A real S3 server (nanio) on this machine holds the pictures that lie in the folder, too. Nothing
decoded is kept, so every step reads and decodes its pictures; steps on the folder and on the warm
cache go by turns. Cold is the first reading of all, which fetches each picture, as they are small.
Of large ones an index reads the headers: how much is fetched is counted, beside reading them whole.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from report import Goal, Result, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "harness"))
from bucket_server import ACCESS_KEY, SECRET_KEY, connect, serve_buckets

from st_shared.objectstore import S3Store
from st_shared.spec import TrainingSpec
from st_trainer.data.images import Images
from st_trainer.data.index import Peers
from st_trainer.data.locate import Place
from st_trainer.data.reading import read_datasets
from st_trainer.loop import step
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

BUCKET = "pictures"
SIDE, BATCH = 256, 8
LARGE_SIDE = 2_048
WARM = Goal("at least", 0.95)
HEADERS = Goal("at most", 0.1)


def main() -> int:
    """Measure, print, write; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 pictures, not 512")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, serve_buckets(_made(name, "server")) as url:
        os.environ |= {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
        results = measured(Path(name), url, 64 if options.quick else 512)
    return 0 if report("bucket_data", results, options.json) else 1


def measured(root: Path, url: str, count: int) -> list[Result]:
    """Every number, of ``count`` pictures."""
    folder = _made(root, "pictures")
    put_pictures(folder, count)
    put_into_bucket(folder, url, "set")
    local, disk = opened(folder, root / "disk")
    cold_session, cold = opened(f"s3://{BUCKET}/set", root / "bucket")
    del cold_session
    remote, warm = opened(f"s3://{BUCKET}/set", root / "bucket", index="again")
    ratios = [seconds(local, count) / seconds(remote, count) for _ in range(5)]
    return [
        *by_headers(root, url, count),
        Result("first reading of the folder", count / disk, "/s", None),
        Result("first reading of the bucket, cold cache", count / cold, "/s", None),
        Result("first reading of the bucket, warm cache", count / warm, "/s", None),
        Result("training speed, bucket with a warm cache ÷ folder", median(ratios), "x", WARM,
               ratios),
    ]  # fmt: skip


def by_headers(root: Path, url: str, count: int) -> list[Result]:
    """The index of pictures as large as cameras make them, out of headers and of whole objects."""
    folder = _made(root, "large")
    put_pictures(folder, count // 8, LARGE_SIDE, grain=True)
    put_into_bucket(folder, url, "large")
    stored = sum(path.stat().st_size for path in folder.glob("*.jpg"))
    found = []
    for discovery in ("headers", "whole"):
        with counted() as fetched:
            _, seconds = opened(f"s3://{BUCKET}/large", root / discovery, discovery=discovery)
        name = f"index of pictures of {stored // (count // 8) // 1000} kB, {discovery}"
        goal = HEADERS if discovery == "headers" else None
        found += [
            Result(name, count // 8 / seconds, "/s", None),
            Result(f"{name}: fetched ÷ stored", fetched["bytes"] / stored, "x", goal),
        ]
    return found


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Bytes of pictures that come out of the bucket meanwhile."""
    found: Counter[str] = Counter()
    whole, part = S3Store.open, S3Store.read

    def opened_(self: S3Store, key: str) -> Iterator[bytes]:
        for piece in whole(self, key):
            found["bytes"] += len(piece) if key.endswith(".jpg") else 0
            yield piece

    def read(
        self: S3Store, key: str, start: int, count: int, *, version: str | None = None
    ) -> bytes:
        piece = part(self, key, start, count, version=version)
        found["bytes"] += len(piece)
        return piece

    with patch.object(S3Store, "open", opened_), patch.object(S3Store, "read", read):
        yield found


def put_into_bucket(folder: Path, url: str, prefix: str) -> None:
    """All files of ``folder`` as objects."""
    store = connect(url, BUCKET, prefix)
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            store.put(path.name, file)


def put_pictures(folder: Path, count: int, side: int = 2 * SIDE, *, grain: bool = False) -> None:
    """JPEG files that compress like photographs, with captions; ``grain`` is that of a sensor."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (16, 16, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        if grain:
            noisy = np.asarray(picture) + generator.normal(0, 8, (side, side, 3))
            picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number:05d}.jpg", quality=90)
        (folder / f"{number:05d}.txt").write_text("a picture of nothing")


def opened(place: Place, root: Path, index: str = "index", **dataset: str) -> tuple[Session, float]:
    """A session on the pictures at ``place``, and the seconds in which they were first read."""
    config = {"image_size": SIDE, "channels": 3, "patch_size": 32, "width": 32, "depth": 1,
              "heads": 2}  # fmt: skip
    document = {
        "model": {"family": "pixel_dit", "config": config},
        "datasets": [{"path": str(place), **dataset}],
        "batch_size": BATCH,
        "ema": {"enabled": False},
    }
    spec = TrainingSpec.model_validate(document)
    begun = time.perf_counter()
    reading = read_datasets(
        spec.datasets, [place], Images(3, SIDE, SIDE), kept_bytes=0, root=root / index,
        peers=Peers(threads=2), cache=root / "cache",
    )  # fmt: skip
    taken = time.perf_counter() - begun
    samples = reading.samples
    return Session(spec, samples, open_denoiser(spec, lambda: samples.captions)), taken


def seconds(session: Session, count: int) -> float:
    """CPU seconds of an epoch."""
    begun = time.process_time()
    for _ in range(count // BATCH):
        step(session, session.sampler.take(BATCH), 1e-4)
    return time.process_time() - begun


def _made(root: str | Path, name: str) -> Path:
    folder = Path(root) / name
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
