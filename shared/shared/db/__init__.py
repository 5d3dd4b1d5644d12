"""Queries and transactions: the queue and its settlement on raw asyncpg, the control plane on SQLModel sessions.

One module of plain functions for each aggregate; ``transaction`` alone commits; ``migrate`` brings the schema up to date.
"""
