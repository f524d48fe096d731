"""The digest that names the content of a dataset, the same wherever it is computed."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple


class ContentFile(NamedTuple):
    """One file of a dataset."""

    path: str
    """Below the dataset's folder, with forward slashes."""
    size: int
    """Bytes."""
    sha256: str


def content_digest(files: Iterable[ContentFile]) -> str:
    """SHA-256 over ``path NUL size NUL sha256 LF`` of each file, in order of the UTF-8 paths."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path.encode()):
        digest.update(f"{file.path}\0{file.size}\0{file.sha256}\n".encode())
    return digest.hexdigest()


def model_kept_as(org: str, model: str) -> str:
    """What a pretrained model that a worker keeps for an organisation is called among contents.

    Other organisations' jobs do not look for it, and it shows nobody a list of models.
    """
    return hashlib.sha256(f"model\n{org}\n{model}".encode()).hexdigest()
