"""``st-worker doctor``: what keeps a host from working, each with how to mend it."""
