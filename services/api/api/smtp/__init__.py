"""The SMTP door: mail submission (RFC 6409) over the server core of ``shared.smtpd``.

The journey of one submission:

1. ``listeners``: a connection to one of the two ports; STARTTLS on the one, TLS from the first octet on the other.
2. ``logins``: AUTH by PLAIN, LOGIN or SCRAM-SHA-256; failures count against the client's address.
3. ``door``: MAIL is held against what the credential may send from, its parameters are read.
4. ``door`` again, with the whole message: ``api.metadata`` reads what its header says to us, and it becomes the ``Submission`` that
   every door hands in. 250 comes after the commit.
"""
