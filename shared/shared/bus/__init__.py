"""The doorbell: core NATS, fire and forget. A ring says that something happened and where; it carries no mail and no secrets.

Losing a ring costs a poll interval. The bus connects in the background, reconnects for ever, and never makes a caller wait.
"""

from shared.bus.bell import Bus

__all__ = ["Bus"]
