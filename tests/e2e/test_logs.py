"""Logs of real processes: soon, in order, each once, and for good."""

import sqlite3
import statistics
import time

from fleet import wait_for

from st_shared.protocol.resources import LogLine

SOON = 3.0
"""Seconds; on a quiet machine it is a tenth, see ``benchmarks/log_ingest.py``."""


def submit(fleet, script):
    return fleet.client.submit({"name": "script", "command": {"run": script}}).id


def rows(fleet, table, job_id):
    of_job = "WHERE attempt_id IN (SELECT id FROM attempts WHERE job_id = ?)"
    with sqlite3.connect(fleet.controller.data / "controller.db") as database:
        return database.execute(f"SELECT count(*) FROM {table} {of_job}", [job_id]).fetchone()[0]


def test_a_line_is_shown_soon_and_stays_without_sql_and_redis(fleet, tmp_path):
    fleet.add_agent()
    stop = tmp_path / "stop"
    job_id = submit(fleet, f"while [ ! -e {stop} ]; do date +%s.%N; sleep 0.05; done")
    followed, delays = [], []
    for event in fleet.client.events(job_id):
        if isinstance(event, LogLine):
            followed.append(event)
            if event.message.replace(".", "").isdecimal():
                delays.append(time.time() - float(event.message))
        if len(delays) == 30:
            stop.touch()  # lines that were shown only at the end would never end it

    assert statistics.median(delays) < SOON
    wait_for("the move to the object store", lambda: rows(fleet, "journal_chunks", job_id) == 0)
    assert rows(fleet, "journal_segments", job_id) == 1
    fleet.controller.valkey().kill()
    assert list(fleet.client.logs(job_id)) == followed
    assert list(fleet.client.logs(job_id, tail=3)) == followed[-3:]
    since = followed[7].at
    assert list(fleet.client.logs(job_id, since=since)) == [
        line for line in followed if line.at >= since
    ]
    after = followed[-3]
    again = [each for each in fleet.client.events(job_id, after=after) if isinstance(each, LogLine)]
    assert again == followed[-2:]


def test_agent_and_controller_die_and_every_line_is_there_once(fleet):
    agent = fleet.add_agent()
    script = """
        i=0
        while [ $i -lt 4000 ]; do
            i=$((i+1)); echo $i
            [ $((i % 100)) = 0 ] && sleep 0.1
        done; true"""
    job_id = submit(fleet, script)

    def has(number):
        last = [line.message for line in fleet.client.logs(job_id, tail=1)]
        return any(text.isdecimal() and int(text) >= number for text in last)

    wait_for("the first lines", lambda: has(100))
    agent.kill()
    agent.start()
    wait_for("lines of the next agent", lambda: has(1200))
    fleet.controller.kill()
    fleet.controller.start()

    assert fleet.client.wait(job_id).state == "succeeded"
    lines = list(fleet.client.logs(job_id))
    numbers = [line.message for line in lines if line.message.isdecimal()]
    assert numbers == [str(number) for number in range(1, 4001)]
    assert [line.seq for line in lines] == sorted({line.seq for line in lines})
