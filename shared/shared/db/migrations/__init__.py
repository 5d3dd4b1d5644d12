"""Alembic's folder: ``versions`` holds the revisions, named by when they may run relative to the code (pre, post)."""
