"""What a test gets of PostgreSQL is as good as new, whatever the test before did to it."""

import psycopg
import pytest
from databases import Databases


@pytest.fixture
def databases(postgres_server, postgres_template):
    made = Databases(postgres_server, postgres_template)
    yield made
    made.close()


@pytest.fixture
def connect(postgres_server):
    """Opens a connection to a database, which the test closes."""
    url = postgres_server.replace("+psycopg", "")
    return lambda name: psycopg.connect(url.format(name=name), autocommit=True)


def told(connection):
    """All that can be told of the rows of a database, and the number that comes next."""
    tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in tables}
    sequences = connection.execute("SELECT sequencename, last_value FROM pg_sequences ORDER BY 1")
    return rows, sequences.fetchall()


@pytest.mark.parametrize("count", [1, 5000], ids=["few rows", "many rows"])
def test_what_is_given_back_is_emptied_and_given_again(databases, connect, count):
    first = databases.take()
    with connect(first) as connection:
        new = told(connection)
        assert new[0]["organisations"]
        connection.execute("UPDATE organisations SET name = 'other'")
        connection.execute(
            "INSERT INTO organisations (slug, name, time_zone, created_at) "
            "SELECT 's' || n, 'n', 'UTC', now() FROM generate_series(1, %s) n",
            (count,),
        )
        connection.execute("SELECT nextval(oid) FROM pg_class WHERE relkind = 'S'")
    databases.give_back(first)
    assert databases.take() == first
    with connect(first) as connection:
        assert told(connection) == new


def test_what_has_another_schema_is_not_given_again(databases, connect):
    first = databases.take()
    with connect(first) as connection:
        connection.execute("CREATE INDEX nobody_knows ON organisations (name)")
    databases.give_back(first)
    assert databases.take() != first


def test_to_what_somebody_is_still_connected_is_not_given_again(databases, connect, monkeypatch):
    monkeypatch.setattr("databases._LOOKS", 2)
    first = databases.take()
    with connect(first):
        databases.give_back(first)
        assert databases.take() != first
