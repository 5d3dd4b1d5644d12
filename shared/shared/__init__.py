"""What the four services agree on: tables and queries, mail and security formats, the queue loop, the HTTP frame.

Rings, outer may import inner, checked by import-linter (``pyproject.toml``)::

    web | worker | smtpd        the HTTP frame; the one queue loop; the one SMTP server core
    db | bus | dns              transactions and queries; the doorbell; resolver with cache
    models                      tables, one file each
    events | lifecycle          the public vocabulary; the state machine
    mail | security             pure formats: bytes and dataclasses in, bytes and dataclasses out; no I/O
    config | log | metrics
    errors | clock
"""
