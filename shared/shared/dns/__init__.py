"""DNS: one resolver with its own cache. Errors say whether to try again or to give up."""
