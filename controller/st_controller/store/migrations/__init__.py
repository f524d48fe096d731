"""Alembic's environment and revisions; ``st_controller.store.migrate`` runs them."""
