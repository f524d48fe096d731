"""Processes that train together, forked here: they speak over gloo on the loopback."""

import multiprocessing
import os
import sys

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from ports import free_port
from torch import distributed

from st_trainer.errors import TrainerError

SECONDS = 200


def fresh_states():
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def as_rank(rank, count, port, work):
    """In a forked process: join as ``rank``, work, and exit with what that gives."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    try:
        code = work(rank)
    except TrainerError as error:
        sys.stderr.write(f"{error}\n")
        code = error.exit_code
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    sys.stderr.flush()
    os._exit(code)


def together(work, count=2):
    """The exit codes of ``count`` ranks."""
    port, context = free_port(), multiprocessing.get_context("fork")
    processes = [
        context.Process(target=as_rank, args=(rank, count, port, work)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
    return [process.exitcode for process in processes]
