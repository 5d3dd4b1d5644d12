"""Webhooks out: from a recorded event to a receiver's answer.

The journey of one event:

1. Whoever changed a delivery wrote the event and a note of it in one transaction, and rang.
2. ``fanout`` takes such notes away and writes one call for each endpoint that wants the event, in one statement.
3. ``worker`` claims calls of a few endpoints; each endpoint gives a slot, the right to have some calls in flight.
4. ``slot`` serves it: for each call it asks the start gate (``ledger``), which keeps the order within one delivery and
   records the attempt.
5. ``payload`` builds the body from rows that never change; ``call`` signs and posts it, through ``transport``, which connects
   only to addresses that were checked.
6. ``outcome`` alone decides what the answer means; ``ledger`` writes it, and makes the next call of that delivery due.
7. The slot takes the endpoint's next calls until there are none, and goes back.
"""
