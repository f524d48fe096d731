"""Run by Alembic: applies the revisions on the connection that ``migrate`` hands over."""

from alembic import context

from st_controller.store.schema import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    transactional_ddl=True,  # SQLite too: the connection comes with its transaction begun
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
