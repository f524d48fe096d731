"""The members of one JSON object as rows, so that one statement writes something of many."""

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class JsonEach(FunctionElement[Any]):
    """Rows of ``key`` and ``value``, of a JSON object that is bound as text.

    Use: ``JsonEach(bindparam("told")).table_valued("key", "value")``.
    """

    name = "json_each"
    inherit_cache = True


@compiles(JsonEach, "sqlite")
def _on_sqlite(element: JsonEach, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(JsonEach, "postgresql")
def _on_postgresql(element: JsonEach, compiler: Any, **options: Any) -> str:
    return f"json_each(CAST({compiler.process(element.clauses, **options)} AS json))"
