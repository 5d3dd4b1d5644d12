"""What every worker is made of: one loop shape, a lease by heartbeat, batches without timers.

The life of a worker: join (:mod:`lease`) -> look, work, wait for the bell, the poll or the stop (:mod:`loop`) -> leave.
Results are written in batches that form by themselves while the previous one commits (:mod:`coalesce`).
"""
