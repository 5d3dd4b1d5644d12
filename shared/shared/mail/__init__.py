"""Mail as bytes: addresses, header fields, messages to write and to read, signatures, reports. Pure: no socket, no database, no clock.

To write: ``address``, ``headers``, ``media_type``, ``mime_write``, ``compose``, ``dkim``, ``from_id``, ``dsn_write``. To read: ``mime``, ``dsn``, ``arf``,
``status``, ``classify``. To pass on: ``raw``, ``mailboxes``, ``seven_bit``. ``simulate`` says which outcome a test's local part asks for.
"""
