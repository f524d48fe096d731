"""A database that is closed keeps no connection, whoever still had one or takes one later."""

import sqlite3

import psycopg
import pytest
from sqlalchemy import text

from st_controller.store.database import Database


def is_open(driver):
    try:
        driver.execute("SELECT 1")
    except (psycopg.OperationalError, sqlite3.ProgrammingError):
        return False
    return True


@pytest.mark.parametrize("taken", ["before", "after"])
def test_what_is_given_back_once_it_is_closed_is_closed(database_url, taken):
    database = Database(database_url)
    if taken == "after":
        database.close()
    with database.engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        database.close()
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert not is_open(driver)
