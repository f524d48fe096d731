"""What goes over the wire: events, messages of workers, resources of the public API, errors.

``journal``   events that the trainer writes and the controller stores
``worker``    messages between a worker and the controller, under ``/v1/worker``
``endpoints`` the calls of workers and the events of their streams, as data that both sides use
``resources`` what the public API under ``/v1`` takes and gives
``states``    the states of jobs, attempts and workers, and the outcomes of attempts
``problems``  RFC 9457 problem documents
``sse``       the text of a server-sent event, written and read
"""
