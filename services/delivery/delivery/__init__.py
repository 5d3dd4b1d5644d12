"""SMTP out: from a claimed queue row to a recorded outcome.

The journey of one delivery:

1. ``worker`` claims rows of a few sites; each site gives a slot, the right to one session.
2. ``pipeline`` serves the slot: it loads what was claimed (``prepare``), and asks the start gate whether anything was held,
   canceled or suppressed meanwhile (``ledger``), before it dials.
3. ``way`` says how the site is reached, over its transport if it has one; ``route`` finds the next hops: a relay, or the MX
   hosts of the mail's domain, whose ``provider`` is its site.
4. ``delivery.smtp`` opens a session. ``group`` says whose mail shares a transaction; ``attempt`` has it signed (``signing``), asks
   the start gate for each recipient, which records the attempts, and sends it.
5. ``outcome`` alone decides what the replies mean; ``ledger`` writes it through ``shared.db.outcomes`` and rings.
   Mail of sandbox keys goes from 2 to 5: ``sandbox`` reads its results from its addresses, and no session is opened.
6. ``dsn`` tells the sender by mail, where the account wants that, of what was not delivered or is late.
7. The session takes the next mail of the site at the pace that ``traffic`` rules allow, until there is none; then the slot goes
   back. What the replies say of the site itself goes to its row (``sites``), and behind whose hosts a domain is to acceptance
   (``seen``).
"""
