"""Runs migrations on the connection that ``database`` gives."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    render_as_batch=True,  # SQLite alters a table by copying it
)
# The caller's transaction holds the migration: it is there as a whole or not at all.
context.run_migrations()
