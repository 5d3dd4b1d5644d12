"""The api service: takes mail, and answers once it is safe.

The journey of one submission:

1. ``routes/guard.py``: the credential is checked before a byte of the body is read (``auth.py``), and the body is read within
   the process's budget of bytes (``budget.py``).
   By SMTP it begins at ``smtp/__init__.py`` instead, and joins at 3 with a whole message.
2. ``routes/messages.py``: JSON, form or whole message (``routes/submissions.py``) is held against its model
   (``schemas/messages.py``) and becomes a ``Submission``, the form that every door hands in.
3. ``submit.py``: limits, addresses (``prepare.py``), and whether this credential may use this From.
4. ``shared/mail/compose.py`` makes the bytes of parts, ``shared/mail/raw.py`` those of a whole message; from here on they are
   final but for DKIM; ours is the topmost Received. What is large is done in a thread.
5. Ids are taken for the message and one delivery per recipient; each delivery gets its from_id in its own return path.
6. ``writer.py``: what queued while the last commit ran is stored by one transaction (``shared/db/accept.py``): message, body,
   deliveries, queue rows, wake rows. One that comes again with its idempotency key (``idempotency.py``) gets the first answer
   there. A recipient on the suppression list is settled there and then, with its event.
7. After the commit, and only then: the doorbell, and ``202 Accepted`` with the ids.

``routes/batch.py`` takes many at once, and each of them goes on at step 3 for itself.

``webapi/`` is another way in: the form and JSON of mox's webapi become the same ``Submission``, and go on at step 3.

The same process serves what customers and operators ask about it (``routes/``): reads of hot tables by raw queries, the
control plane by sessions, each change in one transaction with its ring (``context.py``). What is asked of many deliveries at once
is a job: its request steps it for a moment, then any api process does (``jobs.py``); what ends by itself is seen to beside
that (``hold_upkeep.py``).
"""
