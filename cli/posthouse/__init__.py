"""The ``posthouse`` command: the local stack, migrations, operator commands.

Reading order for ``posthouse local``: ``app`` (the commands) -> ``settings`` (options and what they mean) -> ``local`` (the
order of start and stop) -> ``state`` (what is kept in the data folder) -> ``embedded`` (Postgres and NATS) -> ``seed`` (the demo
account) -> ``services`` (what each service is told) -> ``supervisor`` (keeps them running) -> ``summary`` (what is printed).
"""
