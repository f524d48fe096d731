"""Makes the parts of a controller from its settings."""

from urllib.parse import urlsplit

from st_controller.events.hub import TAIL, Hub
from st_controller.platform import Platform
from st_controller.secret_key import derive, load_secret_key
from st_controller.services.live_queue import LiveQueue
from st_controller.services.slot_prices import SlotPrices
from st_controller.settings import Settings
from st_controller.store.database import Database
from st_controller.store.transaction import CREDENTIALS, CREDENTIALS_OF, FLEET_LESS
from st_shared.clock import Clock, utc_now
from st_shared.objectstore import LocalStore, ObjectStore, S3Store

_GAP = frozenset({TAIL})


def prepare_folder(settings: Settings) -> None:
    """Make the data folder, readable by nobody else."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def open_database(settings: Settings, clock: Clock | None = None) -> Database:
    """The database in force; nothing connects yet."""
    prepare_folder(settings)
    return Database(settings.sqlalchemy_url, clock=clock)


def open_platform(settings: Settings, clock: Clock | None = None) -> Platform:
    """All parts, the hub deaf until it is attached to an event loop."""
    db = open_database(settings, clock)
    hub = Hub()
    db.notify = hub.notify
    platform = Platform(
        settings=settings,
        db=db,
        hub=hub,
        objects=open_objects(settings, clock or utc_now),
        patience=settings.patience,
        queue=LiveQueue(SlotPrices(settings.slot_prices)),
    )
    db.deliver = lambda events: None if platform.feed.take(events) else hub.ring_here(_GAP)
    hub.react(CREDENTIALS, platform.callers.forget)
    hub.react_each(CREDENTIALS_OF, platform.workers.forget_of)
    hub.react(FLEET_LESS, platform.survey.forget)
    return platform


def open_objects(settings: Settings, clock: Clock) -> ObjectStore:
    """The object store in force."""
    if settings.object_store is None:
        sign_key = derive(load_secret_key(settings), "objects")
        return LocalStore(settings.data_dir / "objects", sign_key, clock=clock)
    bucket = urlsplit(settings.object_store)
    access, secret = settings.object_store_access_key, settings.object_store_secret_key
    return S3Store.connect(
        bucket.netloc,
        bucket.path,
        endpoint_url=settings.object_store_endpoint,
        region=settings.object_store_region,
        access_key=access.get_secret_value() if access else None,
        secret_key=secret.get_secret_value() if secret else None,
        addressing=settings.object_store_addressing,
        checksums=settings.object_store_checksums,
        reads_back=settings.object_store_read_back,
        signs_checksums=settings.object_store_signed_checksums,
    )
