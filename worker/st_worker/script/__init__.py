"""The process that runs a command job's script and keeps its journal: the standard library alone.

``run``        the process: starts the script, hands signals on, ends as the script ended
``lines``      what was printed, as lines of bounded length
``allowance``  how many lines may be kept, and a count of what was cut
``journal``    appends events
``outputs``    which files the script leaves behind
"""
