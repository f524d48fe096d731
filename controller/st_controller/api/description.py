"""The OpenAPI document: what the framework knows of the routes, who may call them, and refusals."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from st_controller.api.dependencies import declared_access
from st_controller.api.session_cookie import cookie_name
from st_shared.protocol.problems import MEDIA_TYPE, Problem
from st_shared.spec.job import JobSpec

_REFERENCE = "#/components/schemas/{model}"
_REFUSALS = {
    "4XX": "What was asked is refused; `code` says why, `errors` names fields",
    "5XX": "The controller, its database or its object store fails just now; try again",
}
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "API key of a user, credential of a worker or join token",
}
_OPEN = {"public", "url", "metrics"}
"""Access that takes no credential, or one that stands in the URL."""
_BY_KEY = {"worker", "join"}
_BY_SESSION = {"session"}
_JOB_FILES = ("/v1/jobs", "/v1/jobs:check")
"""Routes whose body is a job file, which is read by our own code for the sake of its messages."""
_JOB_FILE = {
    "anyOf": [
        {"$ref": _REFERENCE.format(model="JobSpec")},
        {
            "type": "object",
            "properties": {"config": {"type": "string", "minLength": 1, "maxLength": 80}},
            "required": ["config"],
            "description": "A JobSpec that begins from a saved configuration",
        },
    ]
}


def install(app: FastAPI) -> None:
    """Make ``app.openapi`` give the whole document; it is made once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = document["components"]
    components["schemas"] = _schemas(components["schemas"])
    cookie = {"type": "apiKey", "in": "cookie", "name": cookie_name(app.state.platform)}
    components["securitySchemes"] = {"key": _KEY, "session": cookie}
    access = {
        (method.lower(), path.replace(":path}", "}")): declared[0]
        for method, path, declared in declared_access(app)
        if declared
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["security"] = _security(access[method, path])
            operation["responses"].pop("422", None)  # of the framework: ours are problem documents
            for status, meaning in _REFUSALS.items():
                operation["responses"][status] = _refusal(meaning)
    for path in _JOB_FILES:
        body = document["paths"][path]["post"]["requestBody"]
        body["content"]["application/json"]["schema"] = _JOB_FILE
    return document


def _schemas(known: dict[str, Any]) -> dict[str, Any]:
    """Those of the routes with ours, in order of their names."""
    _, ours = models_json_schema(
        [(Problem, "validation"), (JobSpec, "validation")], ref_template=_REFERENCE
    )
    found = {**ours["$defs"], **known}
    for name in ("HTTPValidationError", "ValidationError"):
        found.pop(name, None)
    for schema in found.values():
        _close(schema)
    return dict(sorted(found.items()))


def _close(schema: object) -> None:
    """Where keys follow a pattern, others are refused: say so."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            _close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _close(inner)


def _security(access: str) -> list[dict[str, list[str]]]:
    if access in _OPEN:
        return []
    if access in _BY_KEY:
        return [{"key": []}]
    return [{"session": []}] if access in _BY_SESSION else [{"key": []}, {"session": []}]


def _refusal(meaning: str) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model="Problem")}
    return {"description": meaning, "content": {MEDIA_TYPE: {"schema": schema}}}
