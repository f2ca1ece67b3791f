"""Alembic's migrations of a study's database, from an empty one on."""
