"""Before the first step: which encodings are kept, and what of them is made ahead."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from st_shared.spec.cache import CacheMode
from st_shared.spec.families import FAMILIES
from st_shared.spec.training import TrainingSpec
from st_trainer.bounds import bound_of
from st_trainer.caching.bucket import SharedShards, connect_share
from st_trainer.caching.digests import encoder_digest
from st_trainer.caching.encodings import Encodings, Kind
from st_trainer.caching.fill import (
    READERS,
    Filling,
    Missing,
    Work,
    fetch_shared,
    missing_of,
    sample_work,
    teller,
    text_work,
)
from st_trainer.caching.folder import CacheFolder
from st_trainer.caching.room import Room
from st_trainer.damage import tell_damaged
from st_trainer.data.samples import Samples
from st_trainer.evaluation import batches
from st_trainer.families.family import Denoiser
from st_trainer.families.first_frame import FromPicture, from_picture
from st_trainer.families.parts import Parts
from st_trainer.families.pretrained import Pretrained
from st_trainer.families.registry import REGISTRY
from st_trainer.journal import Journal
from st_trainer.quantization.model import quantise_text_encoder
from st_trainer.ranks import Ranks, threads_here

CACHE_VARIABLE = "ST_CACHE_DIR"
"""Folder for what encoders make, which runs may share; else each keeps its own."""
BOUND_VARIABLE = "ST_CACHE_GB"
"""Most that it may hold, GB, where that is less than the specification allows."""

_WORDS = {
    Kind.LATENTS: "latents",
    Kind.CONTROL: "conditioning pictures",
    Kind.IMAGES: "images",
    Kind.FIRST_FRAMES: "first frames",
    Kind.TEXT: "captions",
}


def prepare_encodings(
    spec: TrainingSpec,
    denoiser: Denoiser,
    samples: tuple[Samples, Samples | None],
    processes: PartialState,
    root: Path,
    journal: Journal,
    stop: Callable[[], bool] = lambda: False,
) -> Encodings:
    """What a session encodes with: folders opened and, where that is wanted, filled.

    ``samples`` are those that are trained on and those that are held out. Encoders whose work is
    all done leave memory. ``root`` is where folders lie unless ``ST_CACHE_DIR`` names another.
    Once ``stop`` says so, the rest is left to be encoded on demand.

    Raises:
        BadSpecError: ``cache.share`` cannot be.
        TrainerError: a folder cannot be made.
    """
    ranks = Ranks(processes)
    modes = modes_of(spec, len(samples[0]), ranks.count)
    if set(modes.values()) == {"off"} or not isinstance(denoiser.family, Pretrained):
        return Encodings(denoiser, spec.cache.at_once)
    quantise_text_encoders(spec, denoiser, modes, processes.device)
    folders = open_folders(
        spec, denoiser, modes, Path(os.environ.get(CACHE_VARIABLE) or root), journal
    )
    encodings = Encodings(denoiser, spec.cache.at_once, folders)
    preparing = _Preparing(spec, encodings, ranks, journal, stop)
    every = works(spec, modes, samples)
    ahead = preparing.what_is_missing([each for each in every if modes[each.kind] == "before"])
    if spec.cache.share:
        preparing.what_is_missing([each for each in every if modes[each.kind] == "on_demand"])
    if preparing.is_lacking(ahead):
        denoiser.to(processes.device)
        preparing.fill(ahead)
    done = preparing.done(ahead)
    for each in filter(None, samples):
        tell_damaged(each, ranks, journal)
    tell_freed(encodings.set_down(unneeded(denoiser, modes, done)), journal)
    return encodings


def quantise_text_encoders(
    spec: TrainingSpec, denoiser: Denoiser, modes: Mapping[Kind, CacheMode], device: torch.device
) -> None:
    """Hold text encoders in fewer bits now, where that is wanted, so that no other is cached."""
    quantization, parts = spec.memory.quantization, denoiser.assets
    if modes[Kind.TEXT] == "off" or not quantization.text_encoders:
        return
    assert isinstance(parts, Parts)  # noqa: S101 -- those of every pretrained family are

    def ready(name: str, part: Any) -> None:
        if name.startswith("text_encoder") and isinstance(part, nn.Module):
            quantise_text_encoder(part, quantization, device)

    for name, part in parts.items():
        ready(name, part)
    parts.made_ready = ready


def modes_of(spec: TrainingSpec, count: int, processes: int) -> dict[Kind, CacheMode]:
    """How each kind is cached, of a run on ``count`` samples."""
    sees_all = spec.steps * spec.batch_size * spec.accumulation * processes >= count
    usual: CacheMode = "before" if sees_all else "on_demand"
    shuffled = any(each.captions.shuffle and not each.evaluation for each in spec.datasets)
    text, latents = spec.cache.text, spec.cache.latents
    if text == "auto":
        text = "off" if shuffled or spec.adapter.text_encoder else usual
    if latents == "auto":
        latents = usual
    modes = {Kind.LATENTS: latents, Kind.TEXT: text}
    family = _family(spec)
    reads_pictures = spec.adapter_kind == "controlnet" or FAMILIES[spec.model.family].edits
    if reads_pictures and family and family.control_is_encoded:
        modes[Kind.CONTROL] = latents
    if isinstance(family, FromPicture):
        images = spec.cache.images
        modes[Kind.FIRST_FRAMES] = latents
        modes[Kind.IMAGES] = usual if images == "auto" else images
    return modes


def open_folders(
    spec: TrainingSpec,
    denoiser: Denoiser,
    modes: Mapping[Kind, CacheMode],
    root: Path,
    journal: Journal,
) -> dict[Kind, CacheFolder]:
    """A folder for each kind that is cached, named by what encodes it."""
    bound = bound_of(os.environ, BOUND_VARIABLE, spec.cache.max_gb)
    room, store = Room(root, int(bound * 1e9)), connect_share(spec.cache, os.environ)
    folders = {}
    for kind, mode in modes.items():
        if mode == "off":
            continue
        parts, options = what_encodes(denoiser, kind)
        place = f"{kind}/{encoder_digest(parts, options)}"
        shared = SharedShards(store, f"{place}/") if store else None
        folders[kind] = CacheFolder(
            root / place, room, lambda text: journal.log(text, "warning"), shared
        )
    return folders


def what_encodes(denoiser: Denoiser, kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts that make encodings of ``kind``, and the options that decide with them."""
    family, assets = denoiser.family, denoiser.assets
    options: dict[str, Any] = {"family": family.name, "kind": kind}
    if kind is Kind.IMAGES:
        return {name: assets[name] for name in from_picture(family).image_parts}, options
    if kind is not Kind.TEXT:
        vae = assets["vae"]
        options["tiles"] = [getattr(vae, name, False) for name in ("use_tiling", "use_slicing")]
        return {"vae": vae}, options
    names = text_parts(denoiser)
    config = denoiser.config.model_dump(mode="json")
    flags = {name: each for name, each in assets.items() if isinstance(each, bool | int | str)}
    wanted = family.text_options if isinstance(family, Pretrained) else ()
    options |= {"flags": flags, "config": {name: config.get(name) for name in wanted}}
    return {name: assets[name] for name in names}, options


def text_parts(denoiser: Denoiser) -> list[str]:
    """Tokenizers, text encoders, and what else captions pass through."""
    own = denoiser.family.encoders if isinstance(denoiser.family, Pretrained) else ()
    beginnings = ("text_encoder", "tokenizer")
    return [name for name in denoiser.assets if name.startswith(beginnings) or name in own]


def works(
    spec: TrainingSpec,
    modes: Mapping[Kind, CacheMode],
    samples: tuple[Samples, Samples | None],
) -> list[Work]:
    """All that the run will ask for: of its samples, of those held out, and of its prompts."""
    trained_on, held_out = samples
    settings = spec.validation
    groups = (
        list(batches(held_out, settings.evaluation_samples, settings.seed, spec.batch_size))
        if held_out
        else []
    )
    chosen: list[tuple[Samples, Sequence[int]]] = [(trained_on, range(len(trained_on)))]
    if held_out:
        chosen.append((held_out, [index for group in groups for index in group]))

    def captions() -> Iterator[str]:
        yield from trained_on.captions
        if held_out:
            for group in groups:
                yield from held_out.captions_at(group)
        yield from settings.texts()
        yield ""

    return [
        text_work(captions) if kind is Kind.TEXT else sample_work(kind, chosen)
        for kind, mode in modes.items()
        if mode != "off"
    ]


def unneeded(denoiser: Denoiser, modes: Mapping[Kind, CacheMode], done: set[Kind]) -> list[str]:
    """Networks that no step will ask for once these kinds are ``done``."""
    names = []
    if done.issuperset(modes.keys() - {Kind.TEXT, Kind.IMAGES}):
        names.append("vae")
    if Kind.IMAGES in done:
        names += networks(denoiser, from_picture(denoiser.family).image_parts)
    if Kind.TEXT in done:
        names += networks(denoiser, text_parts(denoiser))
    return names if isinstance(denoiser.assets, Parts) else []


def networks(denoiser: Denoiser, names: Iterable[str]) -> list[str]:
    """Those of ``names`` whose parts have weights."""
    return [name for name in names if isinstance(denoiser.assets[name], nn.Module)]


@dataclass
class _Preparing:
    """Brings the folders of a run up to what it will ask for."""

    spec: TrainingSpec
    encodings: Encodings
    ranks: Ranks
    journal: Journal
    stop: Callable[[], bool]
    damaged: set[bytes] = field(default_factory=set)
    """Keys of samples that some process has found to be damaged: no step will encode them."""

    def what_is_missing(self, every: Sequence[Work]) -> list[tuple[Work, Missing]]:
        """Each with what it lacks, once the bucket was looked into."""
        found = []
        for work in every:
            folder = self.encodings.folders[work.kind]
            missing = missing_of(work, folder)
            if folder.shared is not None:
                fetch_shared(folder, missing, *self.ranks.sharing(folder.folder))
                self.ranks.wait()
                folder.scan(surely=True)
                missing = missing_of(work, folder)
            found.append((work, missing))
        return found

    def is_lacking(self, every: Sequence[tuple[Work, Missing]]) -> bool:
        """Whether some process lacks anything; then all fill together, whatever they have."""
        return self.ranks.any(any(len(missing) for _, missing in every))

    def fill(self, ahead: Sequence[tuple[Work, Missing]]) -> None:
        """Encode what is missing; each process takes its part.

        Processes that see the same folder divide the work; with a bucket all of them do, and then
        fetch what the others have put there.
        """
        begun = monotonic()
        self.encode([(work, missing.part(*self.division(work))) for work, missing in ahead])
        if self.spec.cache.share and self.ranks.count > 1:
            for work, _ in ahead:
                self.encodings.folders[work.kind].scan(surely=True)
            rest = self.what_is_missing([work for work, _ in ahead])
            if self.is_lacking(rest):  # the bucket has not taken everything
                self.encode(
                    [(work, missing.part(*self.neighbours(work))) for work, missing in rest]
                )
        seconds = monotonic() - begun
        counts = [
            f"{len(missing):,} {_WORDS[work.kind]}" for work, missing in ahead if len(missing)
        ]
        told = ", ".join(counts) or "what another process lacked"
        self.journal.log(f"cached {told} in {seconds:.1f} s")

    def encode(self, parts: Sequence[tuple[Work, Missing]]) -> None:
        """Encode this process's ``parts``, and return once all processes have done theirs."""
        told = teller(self.journal, self.ranks.count)
        filling = Filling(
            self.encodings, self.spec.cache.at_once, told, stop=self.stop, readers=readers_here()
        )
        filling.total = sum(len(mine) for _, mine in parts)
        self.journal.progress("caching", 0, filling.total * self.ranks.count)
        for work, mine in parts:
            filling.encode(work, mine)
        self.damaged = self.damaged.union(*self.ranks.gather(filling.damaged))

    def division(self, work: Work) -> tuple[int, int]:
        """This process's number among those that divide ``work``, and their count."""
        if self.spec.cache.share:
            return self.ranks.rank, self.ranks.count
        return self.neighbours(work)

    def neighbours(self, work: Work) -> tuple[int, int]:
        """The same among those that see its folder."""
        return self.ranks.sharing(self.encodings.folders[work.kind].folder)

    def done(self, ahead: Sequence[tuple[Work, Missing]]) -> set[Kind]:
        """The kinds of which nothing is missing any more."""
        found = set()
        for work, missing in ahead:
            folder = self.encodings.folders[work.kind]
            folder.scan(surely=True)
            raw = missing.keys.tobytes()
            keys = (raw[at : at + 16] for at in range(0, len(raw), 16))
            if all(folder.has(key) or key in self.damaged for key in keys):
                found.add(work.kind)
        return found


def readers_here() -> int:
    """Threads of this process that read samples: an accelerator outruns one or two."""
    return max(READERS, threads_here(os.environ))


def tell_freed(size: int, journal: Journal) -> None:
    """Say that encoders have left memory."""
    if size:
        journal.log(f"encoders left memory before the first step: {size / 2**20:,.1f} MiB")


def _family(spec: TrainingSpec) -> Pretrained[Any] | None:
    family = REGISTRY[spec.model.family]
    return family if isinstance(family, Pretrained) else None
