"""What has to happen for every call and every event of the workers' contract to be made."""

import asyncio

from faults.expected import loss
from shades import make_shades

from st_client import Client
from st_shared.protocol import endpoints
from st_shared.protocol.worker import DrainWish
from st_worker.agent import Departure
from st_worker.drain import drain
from st_worker.folder import StateFolder

SEED, LOG_EVERY = 7, 5


async def both_online(controller) -> bool:
    return [each["state"] for each in await controller.workers()] == ["online"] * 2


async def run_alone(controller) -> None:
    """A job with files, one of which is sent in parts."""
    await controller.put("/v1/secrets/hub", {"value": "hf_of_the_contract"})
    script = (
        "cd $ST_RUN_DIR/outputs; echo small > a; head -c 100000 /dev/zero > b;"
        " test $HF_TOKEN = hf_of_the_contract; echo done"
    )
    wanted = {"name": "files", "command": {"run": script}, "secrets": {"HF_TOKEN": "hub"}}
    job = await controller.post("/v1/jobs", wanted)
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert done["state"] == "succeeded", done
    stored = await controller.get(f"/v1/jobs/{job['id']}/artifacts")
    assert {"a", "b"} <= {each["path"].rpartition("/")[2] for each in stored["items"]}


async def run_together(controller, witness) -> None:
    """Jobs that are claimed and finished together, which they are when they come together."""
    wanted = {endpoints.CLAIMS.path, endpoints.FINISHES.path}
    jobs = [{"name": f"n{number}", "noop": {"seconds": 0}} for number in range(8)]
    for _ in range(20):
        batch = await controller.post("/v1/jobs:batch", {"jobs": jobs})
        for job in batch["jobs"]:
            await controller.job_in(job["id"], "succeeded")
        if wanted <= witness.succeeded:
            return


async def run_as_gang(controller) -> None:
    """A job on two hosts, which have to meet."""
    wanted = {"name": "gang", "command": {"run": "true"}, "resources": {"nodes": 2}}
    job = await controller.post("/v1/jobs", wanted)
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert done["state"] == "succeeded", done


async def push_dataset(controller, tmp_path) -> None:
    key = controller.admin.headers["Authorization"].removeprefix("Bearer ")
    folder = make_shades(tmp_path / "shades")
    with Client(controller.url, key) as client:
        await asyncio.to_thread(client.push_dataset, "shades", folder)


def training(name, steps) -> dict[str, object]:
    config = {"image_size": 4, "width": 16, "depth": 1, "heads": 2}
    return {
        "name": name,
        "training": {
            "model": {"family": "pixel_dit", "config": config},
            "datasets": [{"name": "shades"}],
            "steps": steps,
            "seed": SEED,
            "log_every": LOG_EVERY,
            "checkpoint": {"every": 20},
        },
    }


async def shown_of_a_training(controller) -> set[str]:
    """Kinds of lines of a journal of which people are shown something."""
    job = await controller.post("/v1/jobs", training("short", 30))
    done = await controller.job_in(job["id"], "succeeded", "failed")
    assert done["state"] == "succeeded", done
    place = f"/v1/jobs/{job['id']}"
    stored = await controller.get(f"{place}/artifacts")
    shown = {
        "log": (await controller.get(f"{place}/logs"))["items"],
        "metric": (await controller.get(f"{place}/metrics"))["items"],
        "progress": done["progress"]["phase"] == "done",
        "checkpoint": done["checkpoint_step"] == 20,
        **{kind: [each for each in stored["items"] if each["kind"] == kind]
           for kind in ("sample", "output")},
    }  # fmt: skip
    return {kind for kind, found in shown.items() if found}


async def preempt_and_cancel(controller, until) -> None:
    """A training gives way to the drain of its host, goes on elsewhere and is cancelled there."""
    one, two = await workers(controller)
    await order(controller, two, "cordon")
    job = await controller.post("/v1/jobs", training("long", 1_000_000))
    await controller.job_in(job["id"], "running")
    await until(lambda: has_measured(controller, job, 1))
    await order(controller, two, "activate")
    await order(controller, one, "drain", {"grace_seconds": 0})

    async def is_elsewhere():
        return len(await attempts_of(controller, job)) > 1

    await until(is_elsewhere)
    first, *_, last = await attempts_of(controller, job)
    assert (first["outcome"], first["worker"], last["worker"]) == ("preempted", "one", "two")
    await controller.job_in(job["id"], "running")
    await must_go_on_without_gap(controller, job, until)
    await controller.post(f"/v1/jobs/{job['id']}/cancel")
    await controller.job_in(job["id"], "cancelled")
    await order(controller, one, "activate")


async def must_go_on_without_gap(controller, job, until) -> None:
    """From the step that it stopped at, and as one curve whose numbers are those of its steps."""
    await until(lambda: has_measured(controller, job, 2))
    logs = (await controller.get(f"/v1/jobs/{job['id']}/logs?tail=5000"))["items"]
    said = [line["message"] for line in logs if line["message"].startswith("resumed at step ")]
    points = await measured(controller, job)
    steps = [point["step"] for point in points]
    before = [point["step"] for point in points if point["attempt"] == 1]
    assert before[-1] <= int(said[0].rpartition(" ")[2]) < before[-1] + LOG_EVERY
    assert steps == [*range(LOG_EVERY, steps[-1] + 1, LOG_EVERY)]
    assert all(point["values"] == {"loss": loss(SEED, point["step"])} for point in points)


async def measured(controller, job):
    """Its curve."""
    curve = await controller.get(f"/v1/jobs/{job['id']}/metrics:curve?points=5000")
    return curve["items"]


async def has_measured(controller, job, attempt) -> bool:
    """Whether this attempt, or a later one, has."""
    return any(point["attempt"] >= attempt for point in await measured(controller, job))


async def attempts_of(controller, job):
    """First to last."""
    page = await controller.get(f"/v1/jobs/{job['id']}/attempts")
    return sorted(page["items"], key=lambda each: each["number"])


async def workers(controller):
    """Their ids, by name."""
    return [each["id"] for each in await controller.workers()]


async def order(controller, worker_id, name, body=None) -> None:
    await controller.post(f"/v1/workers/{worker_id}/{name}", body)


async def give_orders(controller, until, has_told) -> None:
    """The other orders; returns once all that was ordered so far was told and done."""
    one, _ = await workers(controller)
    for name in ("rotate", "collect-garbage"):
        await order(controller, one, name)

    async def has_obeyed():
        shown = await controller.get(f"/v1/workers/{one}")
        return has_told() and not shown["rotation_ordered"]

    await until(has_obeyed)


async def drain_from_its_host(controller, state, agent_settings) -> None:
    known = await drain(StateFolder(state), DrainWish(), agent_settings)
    shown = await controller.get(f"/v1/workers/{known.worker_id}")
    assert (shown["desired"], shown["reason"]["code"]) == ("draining", "drained")
    assert "(asked for on its host)" in shown["reason"]["message"]


async def leave(controller, agents) -> None:
    """One is retired, the other signs off."""
    (_, retired), (agent, task) = agents
    one, _ = await workers(controller)
    await order(controller, one, "retire")
    departure = await asyncio.wait_for(retired, 120)
    assert departure in {Departure.RETIRED, Departure.REFUSED}
    agent.leave(Departure.SIGNAL)
    assert await asyncio.wait_for(task, 120) is Departure.SIGNAL
