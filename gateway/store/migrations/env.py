"""Run by alembic: migrate on the connection of `gateway.store.migrations.upgrade`, in its transaction."""

from alembic import context

from gateway.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
