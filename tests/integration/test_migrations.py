"""The migrations give exactly the schema."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from st_controller.services.readiness import database_state
from st_controller.store import migrate
from st_controller.store.schema import Table


def differences(db):
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, Table.metadata)


def test_migrated_database_has_exactly_the_schema(db):
    assert differences(db) == []


def test_upgrade_of_a_current_database_changes_nothing(db):
    migrate.upgrade(db)
    assert migrate.current(db) == migrate.head()
    assert differences(db) == []


def test_a_missing_column_would_be_seen(db):
    with db.write() as transaction:
        transaction.session.connection().exec_driver_sql("ALTER TABLE users DROP COLUMN role")
    assert differences(db) != []


def test_an_empty_database_is_told_from_a_migrated_one(db):
    assert database_state(db) == "ready"
    with db.write() as transaction:
        transaction.session.connection().exec_driver_sql("DELETE FROM alembic_version")
    assert database_state(db) == "not_migrated"
