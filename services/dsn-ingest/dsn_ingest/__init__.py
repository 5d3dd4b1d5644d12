"""SMTP in: reports about our mail, and mail for our accounts.

The journey of one message:

1. ``listener`` answers the SMTP session: recipients that do not belong here are refused at RCPT (``addressing``).
2. ``ingest`` stores the raw message and its queue row, one for each recipient; only then comes the 250.
   In local mode ``simulate`` answers what the recipient's local part asks for instead.
3. ``worker`` claims it; ``identify`` reads it and finds the delivery that it speaks of, by the from_id of its recipient.
4. ``outcome`` decides what the report says of that delivery; ``shared.db.outcomes`` writes it, with event and suppression,
   in the transaction that takes the message off the queue.
5. The bell rings; what is no report stays as inbound message of its account.
"""
