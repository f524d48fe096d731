"""Before a process starts: the trainer's datasets, checkpoint and job file, or the script."""

import asyncio
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from st_shared.durable import write_whole
from st_shared.protocol.worker import CheckpointDownload, ClaimReply, DatasetDownload
from st_worker.cached import fetch_file
from st_worker.client import Controller
from st_worker.datasets import DatasetCache
from st_worker.errors import FetchRefused, RequestRefused, TemporaryTrouble, TransferError
from st_worker.folder import AttemptFolder
from st_worker.notes import Notes
from st_worker.script.outputs import OUTPUTS_NAME
from st_worker.transfer import Transfer

log = structlog.get_logger(__name__)

_SAFE_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class Preparation:
    """Fetches what an attempt needs; begun anew after an interruption it does the same again."""

    def __init__(
        self,
        folder: AttemptFolder,
        notes: Notes,
        cache: DatasetCache,
        transfer: Transfer,
        controller: Controller,
        renewed_url_seconds: float,
    ) -> None:
        self._folder, self._notes = folder, notes
        self._cache, self._transfer = cache, transfer
        self._controller, self._renewed_url_seconds = controller, renewed_url_seconds
        self._renewed_at: float | None = None

    async def run(self, claim: ClaimReply) -> list[str]:
        """The arguments for the trainer, once everything they name is in place.

        Raises:
            TransferError: a dataset or the checkpoint cannot be fetched intact.
        """
        while True:
            try:
                return await self._run(claim)
            except FetchRefused as error:
                if not self._may_renew:
                    raise
                claim = await self._renewed(claim, error)

    @property
    def _may_renew(self) -> bool:
        """Whether the URLs may have run out, as those of a claim do after hours."""
        at = self._renewed_at
        return at is None or time.monotonic() - at >= self._renewed_url_seconds

    async def _renewed(self, claim: ClaimReply, refused: FetchRefused) -> ClaimReply:
        """The same lease with fresh URLs; what was fetched so far stays."""
        log.warning("fetch.urls_renewed", why=str(refused))
        self._renewed_at = time.monotonic()
        try:
            return await self._controller.claim(claim.attempt_id)
        except (RequestRefused, TemporaryTrouble) as trouble:
            raise TransferError(f"{refused}; no fresh URL was given: {trouble}") from trouble

    async def _run(self, claim: ClaimReply) -> list[str]:
        arguments = ["run", str(self._folder.job), "--run-dir", str(self._folder.run), "--quiet"]
        for dataset in claim.datasets:
            folder = await self._dataset(dataset)
            arguments += ["--dataset", f"{dataset.name}={folder}"]
        resume = await self._resume([claim.resume, *claim.older]) if claim.resume else "none"
        spec = json.dumps(claim.spec, indent=1)
        await asyncio.to_thread(write_whole, self._folder.job, spec)
        return [*arguments, "--resume", str(resume)]

    async def _dataset(self, dataset: DatasetDownload) -> Path:
        if self._cache.has(dataset.place):
            self._notes.log(f"dataset {dataset.name} is already here")
            return await self._cache.fetch(dataset, self._folder.root.name)
        begun = time.monotonic()
        folder = await self._cache.fetch(dataset, self._folder.root.name)
        seconds = time.monotonic() - begun
        size = sum(archive.size for archive in dataset.archives) / 2**20
        self._notes.log(f"fetched dataset {dataset.name}: {size:,.1f} MiB in {seconds:.1f} s")
        return folder

    async def _resume(self, newest_first: Sequence[CheckpointDownload]) -> Path:
        """The newest checkpoint that comes whole; each that does not is named in the journal."""
        *others, last = newest_first
        for checkpoint, before in zip(others, newest_first[1:], strict=True):
            try:
                return await self._checkpoint(checkpoint)
            except TransferError as error:
                if isinstance(error, FetchRefused) and self._may_renew:
                    raise
                said = f"the checkpoint of step {checkpoint.step} cannot be used: {error}; "
                self._notes.log(f"{said}going on from the one of step {before.step}", "warning")
        return await self._checkpoint(last)

    async def _checkpoint(self, checkpoint: CheckpointDownload) -> Path:
        begun = time.monotonic()
        folder = self._folder.run / "resume" / f"step-{checkpoint.step:06d}"
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        # The manifest says that the folder is whole, so it comes last here too.
        files = sorted(checkpoint.files, key=lambda file: file.path == "manifest.json")
        for file in files:
            if not _SAFE_PATH.fullmatch(file.path):
                raise TransferError(f"a checkpoint holds a file of the name {file.path!r}")
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            await fetch_file(self._cache.content, self._transfer, file, target)
        seconds = time.monotonic() - begun
        self._notes.log(f"fetched the checkpoint of step {checkpoint.step} in {seconds:.1f} s")
        return folder


def prepare_script(folder: AttemptFolder, script: str) -> None:
    """Write the script of a command job and make the folder that it works in."""
    (folder.work / OUTPUTS_NAME).mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(folder.script, script)
