"""Datasets: archives stored by signed URL, then known under a name."""

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from st_controller.errors import Conflict, NotFound
from st_controller.services.actor import Actor
from st_controller.services.policy import storage
from st_controller.services.uploads import sign_upload
from st_controller.store.schema import Dataset
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.objectstore import ObjectStore
from st_shared.protocol.resources import DatasetRequest, DatasetTicket


def announce(tx: Transaction, actor: Actor, request: DatasetRequest) -> Dataset:
    """The row of this content under this name, made if it is new.

    Raises:
        QuotaExceeded: a quota of what is stored has too little left for what is new.
    """
    dataset = _find(tx.session, actor.org, request.name, request.digest) or _new_dataset(
        tx, actor, request
    )
    if dataset.stored_at is None:
        dataset.samples = request.samples
        dataset.archives = [
            {"sha256": file.sha256, "size": file.size, "key": _key(dataset.org, file.sha256)}
            for file in request.archives
        ]
        sizes = [file.size for file in request.archives]
        storage.must_have_room(tx, actor, sum(sizes))
        dataset.room = sum(sizes) + max(sizes)
    return dataset


def _new_dataset(tx: Transaction, actor: Actor, request: DatasetRequest) -> Dataset:
    dataset = Dataset(
        id=new_id("dts"),
        org=actor.org,
        name=request.name,
        digest=request.digest,
        samples=request.samples,
        archives=[],
        room=0,
        created_by=actor.user_id,
        created_at=tx.now,
        stored_at=None,
        current=False,
    )
    try:
        with tx.session.begin_nested():
            tx.session.add(dataset)
    except IntegrityError:
        # Somebody pushed the same content at the same time and was faster.
        return get_version(tx.session, actor.org, request.name, request.digest)
    return dataset


def tickets(objects: ObjectStore, dataset: Dataset, request: DatasetRequest) -> list[DatasetTicket]:
    """Where to PUT each archive; content that the store already has is not sent again."""
    if dataset.stored_at is not None:
        return [DatasetTicket(sha256=file.sha256, url=None) for file in request.archives]
    given = []
    for archive in dataset.archives:
        if _is_stored(objects, archive):
            given.append(DatasetTicket(sha256=archive["sha256"], url=None))
            continue
        upload = sign_upload(
            objects, archive["key"], size=archive["size"], sha256=archive["sha256"]
        )
        given.append(
            DatasetTicket(sha256=archive["sha256"], url=upload.url, headers=upload.headers)
        )
    return given


def missing(objects: ObjectStore, dataset: Dataset) -> list[str]:
    """Checksums of archives that have not arrived; network work, outside any transaction."""
    if dataset.stored_at is not None:
        return []
    return [each["sha256"] for each in dataset.archives if not _is_stored(objects, each)]


def _is_stored(objects: ObjectStore, archive: dict[str, object]) -> bool:
    stat = objects.stat(str(archive["key"]))
    return (
        stat is not None
        and stat.size == archive["size"]
        and stat.sha256 in {None, archive["sha256"]}
    )


def complete(tx: Transaction, actor: Actor, name: str, digest: str, lacking: list[str]) -> Dataset:
    """Let ``name`` stand for this content from now on; running jobs keep what they began with.

    Raises:
        Conflict: archives are missing.
    """
    # All versions are locked, in one order: two that are completed at once take turns.
    tx.session.execute(
        select(Dataset.id)
        .where(Dataset.org == actor.org, Dataset.name == name)
        .order_by(Dataset.id)
        .with_for_update()
    )
    dataset = get_version(tx.session, actor.org, name, digest)
    if lacking:
        raise Conflict(
            f"{len(lacking)} archives of {name!r} have not arrived",
            code="not_uploaded",
            hint="push the dataset again; what has arrived is not sent twice",
        )
    dataset.stored_at = dataset.stored_at or tx.now
    tx.session.execute(
        update(Dataset)
        .where(Dataset.org == actor.org, Dataset.name == name, Dataset.id != dataset.id)
        .values(current=False)
    )
    dataset.current = True
    tx.audit(
        actor.signature,
        "dataset.registered",
        dataset.id,
        name=name,
        digest=digest,
        samples=dataset.samples,
    )
    return dataset


def get_version(session: Session, org: str, name: str, digest: str) -> Dataset:
    """This content under this name, or ``NotFound``."""
    dataset = _find(session, org, name, digest)
    if dataset is None:
        raise NotFound(f"dataset {name!r} was not announced with this content")
    return dataset


def get_dataset(session: Session, org: str, name: str) -> Dataset:
    """What a name stands for now, or ``NotFound``."""
    dataset = session.scalar(
        select(Dataset).where(Dataset.org == org, Dataset.name == name, Dataset.current)
    )
    if dataset is None:
        raise NotFound(f"there is no dataset {name!r}", hint="`st datasets list` shows them")
    return dataset


def list_datasets(
    session: Session, org: str, after: str | None, limit: int
) -> tuple[list[Dataset], str | None]:
    """Registered datasets by name, and the name after which the next page begins."""
    query = (
        select(Dataset)
        .where(Dataset.org == org, Dataset.current)
        .order_by(Dataset.name)
        .limit(limit + 1)
    )
    if after:
        query = query.where(Dataset.name > after)
    found = list(session.scalars(query))
    return found[:limit], found[limit - 1].name if len(found) > limit else None


def _key(org: str, sha256: str) -> str:
    """Where an archive lies: an organisation never learns that another one has it too."""
    return f"datasets/{org}/{sha256}.tar"


def _find(session: Session, org: str, name: str, digest: str) -> Dataset | None:
    return session.scalar(
        select(Dataset).where(Dataset.org == org, Dataset.name == name, Dataset.digest == digest)
    )
