"""Runs the migrations on the connection that Database.migrate hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # A name of its own: the database may be shared with other services.
    version_table="feedback_schema_version",
    # The caller holds one transaction round everything; SQLite's DDL is transactional too.
    transactional_ddl=True,
)

with context.begin_transaction():
    context.run_migrations()
