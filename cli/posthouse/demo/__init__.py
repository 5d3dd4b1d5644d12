"""``posthouse demo``: one mail through the whole platform and back, told as a timeline; exit 0 only if all of it was seen.

1. ``run`` starts a throw-away stack (``posthouse local``, as anybody would), a remote mail server and a webhook receiver.
2. ``story`` hands mail in over REST and looks, at each step, at what the others saw: the ``remote`` has the mail, ``dkim_check``
   its signatures, ``receiver`` the webhooks, the REST interface the records.
3. The remote returns a delivery status notification (``report``) over SMTP, as mail servers do.
4. ``timeline`` prints; what fails to be seen in time ends the demo with exit 1 and the whereabouts of the logs.

The remote, the report and both verifications are written here from the standards and share no code with the services.
"""
