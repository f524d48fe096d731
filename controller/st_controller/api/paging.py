"""The parameters of lists."""

from typing import Annotated

from fastapi import Query

Limit = Annotated[int, Query(ge=1, le=500, description="how many items at most")]
BeginningOfJob = Annotated[
    str | None,
    Query(pattern=r"^job_[0-9a-z]{1,26}$", description="Only jobs whose id begins so"),
]
BeginningOfArray = Annotated[
    str | None,
    Query(pattern=r"^arr_[0-9a-z]{1,26}$", description="Only arrays whose id begins so"),
]
Cursor = Annotated[str | None, Query(max_length=400, description="`next_cursor` of the last page")]
