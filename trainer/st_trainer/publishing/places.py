"""Sends a folder somewhere; what may pass is told from what will not."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from st_shared.objectstore import InvalidKeyError, S3Store, StoreUnreachableError
from st_shared.spec.publishing import PublishSpec
from st_trainer.errors import BadSpecError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_FOR_LATER = (408, 409, 412, 425, 429)
"""Answers of a server below 500 after which a further try may help."""


class PublishError(Exception):
    """It was not published; ``is_final``: no later try will help."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


class PublishPlace(ABC):
    """One place that folders are sent to."""

    @abstractmethod
    def send(self, folder: Path, below: str, said: str) -> str:
        """Send the files of ``folder`` to ``below`` there; gives the address. Harmless twice.

        Raises:
            PublishError: it was refused.
            Exception: whatever the client of the place raises where the network fails.
        """


class Hub(PublishPlace):
    """A repository on Hugging Face's hub, or a server that speaks as it does."""

    def __init__(self, spec: PublishSpec, environment: Mapping[str, str]) -> None:
        """Raises ``BadSpecError`` where there is no token."""
        from huggingface_hub import HfApi  # noqa: PLC0415 -- seconds

        token = environment.get(spec.token_variable)
        if not token:
            raise BadSpecError(
                f"training.publish: {spec.repository} needs a token in {spec.token_variable}: "
                f"store it with `st secrets set` and name it in the job's secrets"
            )
        self._spec = spec
        self._api = HfApi(endpoint=spec.endpoint_url, token=token)

    def send(self, folder: Path, below: str, said: str) -> str:
        """One commit; the repository is made where there is none."""
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

        repository = str(self._spec.repository)
        try:
            self._api.create_repo(repository, private=self._spec.private, exist_ok=True)
            commit = self._api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                path_in_repo=below or None,
                commit_message=said,
            )
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            is_final = 400 <= status < 500 and status not in _FOR_LATER
            raise PublishError(f"{repository}: {described(error)}", is_final=is_final) from error
        except ValueError as error:
            raise PublishError(f"{repository}: {described(error)}", is_final=True) from error
        return str(commit.commit_url)


class Bucket(PublishPlace):
    """A prefix of a bucket."""

    def __init__(self, spec: PublishSpec, environment: Mapping[str, str]) -> None:
        """Raises ``BadSpecError`` where the URI cannot be."""
        bucket, _, prefix = str(spec.uri).removeprefix("s3://").partition("/")
        named = (environment[name] for name in _ENDPOINTS if environment.get(name))
        self._uri = f"s3://{bucket}/{prefix.rstrip('/')}".rstrip("/")
        try:
            self._store = S3Store.connect(
                bucket, prefix, endpoint_url=spec.endpoint_url or next(named, None)
            )
        except (InvalidKeyError, StoreUnreachableError) as error:
            raise BadSpecError(f"training.publish: {spec.uri}: {error}") from error

    def send(self, folder: Path, below: str, said: str) -> str:
        """File by file; a manifest comes last, so that what has one is whole."""
        del said
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files.sort(key=lambda path: path.name == "manifest.json")
        try:
            for path in files:
                name = path.relative_to(folder).as_posix()
                with path.open("rb") as body:
                    self._store.put(f"{below}/{name}" if below else name, body)
        except (StoreUnreachableError, OSError) as error:
            raise PublishError(f"{self._uri}: {described(error)}", is_final=False) from error
        except InvalidKeyError as error:
            raise PublishError(f"{self._uri}: {described(error)}", is_final=True) from error
        return f"{self._uri}/{below}" if below else self._uri


def open_place(spec: PublishSpec, environment: Mapping[str, str]) -> PublishPlace:
    """The place that ``spec`` names.

    Raises:
        BadSpecError: it cannot be used: no token, or no such bucket can be.
    """
    return (Hub if spec.kind == "huggingface" else Bucket)(spec, environment)


def described(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, PublishError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
