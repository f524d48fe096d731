"""Which pretrained models lie in the cache of Hugging Face's libraries on this host."""

from collections.abc import Mapping
from pathlib import Path

_MOST = 1000


def cached_models(environment: Mapping[str, str]) -> list[str]:
    """Models of which a revision is stored, as ``owner/name``, in order; see ``hub_folder``.

    The layout is that of ``huggingface_hub``: ``models--owner--name/snapshots/REVISION/``.
    """
    folder = hub_folder(environment)
    try:
        repositories = sorted(folder.glob("models--*"))
        found = [each for each in repositories if any(each.glob("snapshots/*/*"))]
    except OSError:
        return []  # none that this user may read
    names = [each.name.removeprefix("models--").replace("--", "/") for each in found]
    return [name for name in names if len(name) <= 200][:_MOST]


def hub_folder(environment: Mapping[str, str]) -> Path:
    """Where the libraries store models, as they look for it themselves."""
    if given := environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE"):
        return Path(given).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"
