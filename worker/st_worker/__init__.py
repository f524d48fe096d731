"""The worker: an agent that joins a controller, runs trainers as child processes, ships results.

Read top to bottom:

``cli``          the ``st-worker`` command
``agent``        the life of the agent: register, heartbeats, stream, orders, leaving
``joining``      how a join token or a credential becomes a registration
``rotation``     how the credential is changed; ``credential`` keeps it
``garbage``      removes what no attempt needs; ``removal`` whole folders, whatever is in them
``attempt_run``  one attempt from its claim to its finish
``execution``    the part of it that ends with its process; ``noop`` the part without one
``programs``     what it may run: the trainer or a script
``prepare``      datasets and checkpoint for it; ``datasets`` is the cache, ``transfer`` the wire
``trainer``      its process, seen from outside; ``supervise`` runs above it
``script``       the process that runs a script and keeps its journal
``outcome``      what an exit and an order to stop mean together
``shipping``     journal lines to the controller; ``uploads`` files to the store
``journal``      reads the journal from an offset; ``notes`` adds the worker's own lines
``client``       calls of the protocol; ``stream`` the events; ``backoff`` when to try again
``folder``       where everything lies; ``record`` what is kept of an attempt
``inventory``    what this machine has
"""
