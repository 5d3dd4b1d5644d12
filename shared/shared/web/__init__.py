"""The HTTP frame of every service.

* ``problems``: what an error looks like to a caller (RFC 9457), and the limits of a request.
* ``health``: ``/livez``, ``/readyz``, ``/metrics``.
* ``serve``: an HTTP server and a service's life in one event loop.
"""
