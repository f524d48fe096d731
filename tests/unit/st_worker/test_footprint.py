"""What an agent loads stays small; ``benchmarks/footprint.py`` has the goal and measures it."""

import json
import subprocess
import sys

PROGRAM = """
import json, sys
import psutil
import st_worker.serve
print(json.dumps({"mib": psutil.Process().memory_info().rss / 2**20, "modules": list(sys.modules)}))
"""
HEAVY = {"boto3", "botocore", "cryptography", "fastapi", "numpy", "sqlalchemy", "torch", "yaml"}
MOST_MIB = 56.0
"""After imports; some more come with sockets, TLS and threads, and the goal is 60."""


def test_an_agent_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert {name.partition(".")[0] for name in told["modules"]} & HEAVY == set()
    assert told["mib"] <= MOST_MIB
