"""A process that submits as often as its quotas let it; it imports no more than that takes."""

from st_controller.errors import QuotaExceeded
from st_controller.services import rights, submission
from st_controller.store.database import Database
from st_controller.store.schema import User

BODY = {"name": "j", "noop": {}, "expected_time": "10m"}
PATIENCE = 200.0
"""Seconds for all processes to be there."""


def race(url: str, names: list[str], each: int, together, told) -> None:
    """Submit ``each`` times, for these users in turn, and tell how often that was let and refused.

    ``together`` lets all processes begin at one moment.
    """
    db = Database(url)
    with db.read() as session:
        people = [_actor(session, name) for name in names]
    together.wait(PATIENCE)
    done = refused = 0
    for number in range(each):
        try:
            with db.write() as tx:
                submission.submit(tx, people[number % len(people)], BODY)
            done += 1
        except QuotaExceeded:
            refused += 1
    db.close()
    told.put((done, refused))


def _actor(session, name: str):
    rows = session.execute(rights.rights_query().where(User.username == name)).all()
    return rights.actor(rights.rights_of(rows))
