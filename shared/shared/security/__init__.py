"""Secrets, credentials, signatures, and the guard of what we connect to: pure, no input or output.

* ``keys``: the installation's secrets and what is derived from them.
* ``sealing``: secrets at rest. ``credentials``: API keys and passwords. ``webhook_signing``: Standard Webhooks.
* ``outbound``: may we call this address?
"""
