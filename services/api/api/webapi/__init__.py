"""The mox webapi: ``/webapi/v0/<Method>`` as software written for mox speaks it, over our own use cases.

A call, in the order in which it can be refused:

1. ``door.py``: the method exists (404), the verb is POST (405), there are credentials (401), this address has not failed too often
   (429), they are right (401). Only then the body is read, within the process's budget of bytes.
2. ``request.py``: the form, and in its field ``request`` the JSON; ``values.py`` holds it against the method's fields.
3. ``send.py`` or ``suppressions.py``: the method itself; a message goes to the same ``Submitter`` as from every door.
4. ``faults.py``: every error is 400 with ``{"Code", "Message"}``, whatever it was.

What differs from mox, and why, stands in ``docs/webapi.md``.
"""
