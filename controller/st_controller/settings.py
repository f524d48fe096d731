"""Everything that can be configured: by environment variables ``ST_...`` or command-line options.

With nothing set the controller is embedded: SQLite, its own Valkey and a folder as object store,
all below ``data_dir``.
"""

import re
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from st_controller.domain.workers import Patience
from st_shared.logging import LogFormat
from st_shared.objectstore.s3 import AddressingStyle

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_POSTGRESQL = re.compile(r"(postgresql(\+psycopg)?|sqlite)://.")
_REDIS = re.compile(r"(rediss?|unix)://.")


class Settings(BaseSettings):
    """The configuration of one controller process; immutable once it runs."""

    model_config = SettingsConfigDict(env_prefix="ST_", frozen=True, extra="forbid")

    data_dir: Path = Path(".st/controller")
    """Folder of everything that the embedded parts keep."""
    host: str = "127.0.0.1"
    port: int = Field(8400, ge=0, le=65_535)
    """0 takes a free port."""
    public_url: str | None = None
    """Address under which people and workers reach the controller, such as ``https://st.example``."""
    trusted_proxies: str = ""
    """Addresses or networks of proxies whose ``X-Forwarded-*`` headers are believed, separated by
    commas; by default nobody's, and every address is that of the connection."""

    database_url: SecretStr | None = None
    """SQLAlchemy URL of PostgreSQL (``postgresql+psycopg://...``); none: SQLite in ``data_dir``."""
    auto_migrate: bool | None = None
    """Whether ``serve`` migrates the database; by default only where it is SQLite."""
    redis_url: SecretStr | None = None
    """URL of Redis or Valkey; none: a server of our own below ``data_dir``."""
    object_store: str | None = None
    """``s3://bucket/prefix``; none: the folder ``objects`` in ``data_dir``."""
    object_store_endpoint: str | None = None
    """URL of an S3 server other than AWS."""
    object_store_region: str | None = None
    object_store_access_key: SecretStr | None = None
    """Without it boto3 looks for credentials itself."""
    object_store_secret_key: SecretStr | None = None
    object_store_addressing: AddressingStyle | None = None
    """How a bucket is named in URLs; by default ``path`` at an endpoint, ``virtual`` at AWS."""
    object_store_checksums: Literal["when_required", "when_supported"] = "when_required"
    """boto3's ``request_checksum_calculation``; few servers but AWS take ``when_supported``."""
    object_store_signed_checksums: bool = True
    """Whether uploads carry ``x-amz-checksum-sha256``; off for servers that refuse it."""
    object_store_read_back: bool = False
    """Whether what came in parts is read once more to compare the SHA-256 of the whole."""
    secret_key: SecretStr | None = Field(None, min_length=32)
    """Signs URLs; all replicas need the same. None: made once, kept in ``data_dir``."""
    audit_key: SecretStr | None = Field(None, min_length=32)
    """Proves the audit log; all replicas need the same. None: made once, kept in ``data_dir``."""
    audit_former_keys: tuple[Annotated[SecretStr, Field(min_length=32)], ...] = Field(
        (), max_length=100
    )
    """Keys of the audit log that ``audit_key`` took over from, or is to take over from."""
    secrets_key: SecretStr | None = Field(None, min_length=32)
    """Seals stored secrets; all replicas need the same. None: made once, kept in ``data_dir``."""
    secrets_former_keys: tuple[Annotated[SecretStr, Field(min_length=32)], ...] = Field(
        (), max_length=100
    )
    """Keys that open what they sealed before ``secrets_key``."""
    secrets_key_command: str | None = None
    """Command of a key service instead of a key: ``COMMAND wrap`` and ``COMMAND unwrap`` take and
    give base64."""
    audit_retention_days: float | None = Field(None, ge=1, le=36_500)
    """Age at which audit entries move to the object store; none: they stay in the database."""

    log_level: str = "info"
    log_format: LogFormat = "auto"

    heartbeat_seconds: float = Field(5.0, gt=0)
    silent_after_seconds: float = Field(15.0, gt=0)
    lease_ttl_seconds: float = Field(25.0, gt=0)
    offer_ttl_seconds: float = Field(10.0, gt=0)

    worker_credential_days: float = Field(30.0, gt=0, le=3650)
    """Age at which workers are told to fetch a new credential."""
    deleted_job_days: float = Field(7.0, ge=0, le=3650)
    """For so long the files of a deleted job stay in the object store."""

    slot_prices: dict[
        Annotated[str, Field(min_length=1, max_length=200)], Annotated[float, Field(gt=0, le=1e6)]
    ] = Field(default_factory=dict, max_length=200)
    """Weight of a slot-second in the fair share: globs ``accelerator`` or ``provider/accelerator``
    to numbers, as JSON, the first match counts; without a match 1."""

    session_hours: float = Field(12.0, gt=0, le=24 * 90)
    secure_cookies: bool | None = None
    """Whether cookies travel over TLS only; by default where ``public_url`` is https."""
    login_attempts_per_minute: int = Field(10, ge=1)
    """Of one user name from one address."""
    max_body_bytes: int = Field(16 * 2**20, ge=2**16)
    """Largest request body; uploads by signed URL are bounded by their signature instead."""
    allow_command_jobs: bool = False
    """Whether holders of ``job.command`` may submit jobs that run shell commands, hooks too."""
    metrics_public: bool = False
    """Whether ``/metrics`` answers everybody; otherwise this machine and holders of a key."""

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _POSTGRESQL.match(url.get_secret_value()):
            raise ValueError("give postgresql+psycopg://USER:PASSWORD@HOST/NAME")
        return url

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _REDIS.match(url.get_secret_value()):
            raise ValueError("give redis://HOST:PORT/0, rediss://... or unix://PATH")
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        for item in filter(None, (part.strip() for part in text.split(","))):
            try:
                ip_network(item)
            except ValueError:
                raise ValueError(
                    f"{item!r} is no address or network; write 10.0.0.5 or 10.0.0.0/24"
                ) from None
        return text

    @field_validator("public_url")
    @classmethod
    def _is_web_address(cls, url: str | None) -> str | None:
        if url is not None and (urlsplit(url).scheme not in {"http", "https"}):
            raise ValueError("give an address such as https://st.example")
        return url.rstrip("/") if url else None

    @field_validator("object_store")
    @classmethod
    def _is_bucket(cls, url: str | None) -> str | None:
        if url is not None and not (url.startswith("s3://") and urlsplit(url).netloc):
            raise ValueError("give s3://bucket or s3://bucket/prefix")
        return url

    @field_validator("log_level")
    @classmethod
    def _is_level(cls, level: str) -> str:
        if level.lower() not in {"debug", "info", "warning", "error", "critical"}:
            raise ValueError("choose debug, info, warning, error or critical")
        return level.lower()

    @model_validator(mode="after")
    def _patience_is_ordered(self) -> "Settings":
        if not self.heartbeat_seconds < self.silent_after_seconds < self.lease_ttl_seconds:
            raise ValueError(
                "heartbeat_seconds < silent_after_seconds < lease_ttl_seconds must hold, or "
                "healthy workers would lose their attempts"
            )
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """The database in force; holds a password where there is one."""
        if self.database_url:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'controller.db'}"

    @property
    def migrates_itself(self) -> bool:
        """Whether ``serve`` brings the schema up to date."""
        return self.database_url is None if self.auto_migrate is None else self.auto_migrate

    @property
    def patience(self) -> Patience:
        """How long workers may be silent."""
        return Patience(
            heartbeat=self.heartbeat_seconds,
            silent_after=self.silent_after_seconds,
            lease_ttl=self.lease_ttl_seconds,
            offer_ttl=self.offer_ttl_seconds,
        )

    @property
    def session_lifetime(self) -> timedelta:
        """How long a browser stays signed in."""
        return timedelta(hours=self.session_hours)

    @property
    def cookies_are_secure(self) -> bool:
        """Whether cookies are only sent over TLS."""
        if self.secure_cookies is not None:
            return self.secure_cookies
        return bool(self.public_url and self.public_url.startswith("https://"))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in _LOOPBACK
