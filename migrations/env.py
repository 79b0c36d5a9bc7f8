"""Alembic's environment: runs on the connection that dbscore.schema gives it, or prints SQL."""

from alembic import context

from dbscore.tables import SCHEMA, metadata

options = {"target_metadata": metadata, "version_table_schema": SCHEMA, "include_schemas": True}

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    context.run_migrations()
else:
    # the caller's transaction: an installation is there whole or not at all
    context.configure(connection=context.config.attributes["connection"], **options)
    context.run_migrations()
