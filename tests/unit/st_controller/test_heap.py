"""Heaps of threads: as many as the environment says, else few."""

import subprocess
import sys

COUNT = """
import ctypes, threading
from st_controller.heap import share_heaps
told = share_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
ready = threading.Barrier(9)
def take():
    libc.malloc(4096)
    ready.wait()
    ready.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
for each in threads:
    each.start()
ready.wait()
libc.malloc_stats()
ready.wait()
print(told)
"""
BACK = """
import ctypes, os
from st_controller.heap import give_back
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
begun = resident()
taken = [libc.malloc(65536) for _ in range(512)]
for each in taken:
    ctypes.memset(each, 1, 65536)
last = libc.malloc(65536)  # so that the end of the heap is in use
for each in taken:
    libc.free(each)
before = resident()
give_back()
print(before - begun, resident() - begun)
"""


def heaps(**environment):
    """Whether it was done, and how many heaps eight threads at a time have."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), done.stderr.count("Arena")


def test_what_is_free_is_given_back():
    done = subprocess.run([sys.executable, "-c", BACK], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 2


def test_threads_share_few_heaps_unless_it_is_said_how_many():
    assert heaps() == ("True", 2)
    told, count = heaps(MALLOC_ARENA_MAX="3")
    assert (told, count) == ("False", 3)
