"""What must hold of every job when everything that was broken is whole again."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import httpx

from faults.expected import checkpoint_files, loss, result_files, sample
from faults.plan import LEASE

TIDY_SECONDS = 60.0
"""What stays for so long stays for ever."""
ENDED = {"succeeded", "lost", "failed", "preempted", "expired"}


@dataclass(frozen=True)
class Wanted:
    """A job that was submitted, and what is known of it beforehand."""

    id: str
    kind: str
    """``training`` (scripted), ``real`` (with a model), ``command`` or ``noop``."""
    seed: int
    steps: int
    every: int
    log_every: int
    like: str | None = None
    """Of a real training: the job that did the same undisturbed."""


def violations(rig, wanted: Wanted) -> list[str]:
    """A sentence for each promise that was broken for this job."""
    job = rig.client.job(wanted.id)
    if job.state != "succeeded":
        return [f"the job is {job.state}: {job.reason}"]
    attempts = list(rig.client.attempts(wanted.id))
    found = [*_attempts(attempts)]
    if wanted.kind == "noop":
        return found  # it has no journal
    found += [*_lines(rig, wanted, attempts), *_charged_as_used(rig, attempts)]
    if wanted.kind == "real":
        found += [*_like_undisturbed(rig, wanted, attempts), *_checksums(rig, wanted)]
    elif wanted.kind == "training":
        found += [*_curve(rig, wanted), *_resumed(rig, wanted, attempts)]
        found += _artifacts(rig, wanted, attempts)
    elif wanted.kind == "command":
        found += _script(rig, wanted, attempts)
    return found


def _attempts(attempts):
    outcomes = [each.outcome for each in attempts]
    if outcomes.count("succeeded") != 1 or outcomes[-1] != "succeeded":
        yield f"attempts ended as {outcomes}"
    if unknown := set(outcomes) - ENDED:
        yield f"attempts ended as {unknown}"


def _lines(rig, wanted, attempts):
    """Each line once and in order, the same as in the worker's journal, all where it succeeded."""
    stored: dict[int, list[tuple[int, object]]] = {}
    for line in rig.client.logs(wanted.id):
        stored.setdefault(line.attempt, []).append((line.seq, line.message))
    for point in rig.client.metrics(wanted.id):
        stored.setdefault(point.attempt, []).append((point.seq, point.values))
    for attempt in attempts:
        lines = sorted(stored.get(attempt.number, []), key=lambda line: line[0])
        numbers = [seq for seq, _ in lines]
        if len(set(numbers)) != len(numbers):
            yield f"attempt {attempt.number} has lines twice"
        written = _written(rig, attempt)
        if written is None:
            if lines or attempt.outcome == "succeeded":
                yield f"attempt {attempt.number} has no journal to compare"
            continue
        due = [line for line in written if line[0] <= attempt.acked_seq]
        if attempt.outcome == "succeeded" and len(due) != len(written):
            yield f"attempt {attempt.number} lacks {len(written) - len(due)} lines at its end"
        if lines != due:
            other = _first(lines, due)
            yield f"attempt {attempt.number} holds other lines than were written: {other}"


def _first(lines, due):
    for mine, theirs in zip(lines, due, strict=False):
        if mine != theirs:
            return f"{mine} where {theirs} was due"
    return f"{len(lines)} where {len(due)} were due"


def _written(rig, attempt):
    """(seq, what) of logs and metrics in the journal of the worker; none without a journal."""
    for agent in rig.agents:
        path = agent.state / "attempts" / attempt.id / "run" / "journal.ndjson"
        if path.exists():
            raw = path.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1].splitlines()
            events = [json.loads(line) for line in whole]
            return [
                (event["seq"], event.get("message", event.get("values")))
                for event in events
                if event["kind"] in {"log", "metric"}
            ]
    return None


def _curve(rig, wanted):
    """No gap and no double, as ``st metrics`` draws it; each number is that of its step."""
    from st_client.commands.metrics import curve

    points = curve(list(rig.client.metrics(wanted.id)))
    steps = [point.step for point in points]
    due = list(range(wanted.log_every, wanted.steps + 1, wanted.log_every))
    if steps != due:
        yield f"the curve has steps {sorted(set(due) ^ set(steps))} wrong: {steps}"
    wrong = [
        point.step for point in points if point.values != {"loss": loss(wanted.seed, point.step)}
    ]
    if wrong:
        yield f"the curve has other numbers at steps {wrong}"


def _like_undisturbed(rig, wanted, attempts):
    """Same curve and same weights, to the bit, as the job that nothing happened to."""
    from st_client.commands.metrics import curve

    def measured(job_id):
        points = curve(list(rig.client.metrics(job_id)))
        return [(point.step, point.values.get("loss")) for point in points]

    mine, due = measured(wanted.id), measured(wanted.like)
    if mine != due:
        yield f"the curve differs from the undisturbed one: {_first(mine, due)}"

    def weights(job_id):
        held = rig.client.artifacts(job_id, "output")
        last = [each for each in held if each.path.endswith("weights.safetensors")]
        return last[-1].sha256 if last else None

    if weights(wanted.id) != weights(wanted.like):
        yield f"other weights than undisturbed, after {len(attempts)} attempts"


def _checksums(rig, wanted):
    for each in rig.client.artifacts(wanted.id):
        content = httpx.get(httpx.URL(rig.controller.url).join(each.url), timeout=30).content
        if sha256(content).hexdigest() != each.sha256:
            yield f"{each.path} of attempt {each.attempt} has another checksum"


def _resumed(rig, wanted, attempts):
    """Each attempt goes on from the newest checkpoint that was stored whole before it."""
    manifests = [
        each
        for each in rig.client.artifacts(wanted.id, "checkpoint")
        if each.path.endswith("manifest.json")
    ]
    messages: dict[int, list[str]] = {}
    for line in rig.client.logs(wanted.id):
        messages.setdefault(line.attempt, []).append(line.message)
    for attempt in attempts:
        said = [text for text in messages.get(attempt.number, []) if "at step" in text]
        if not said:
            continue
        begun = int(said[0].rsplit(" ", 1)[1])
        before = [each.step for each in manifests if each.attempt < attempt.number]
        if begun != max(before, default=0):
            yield f"attempt {attempt.number} began at {begun}, stored were {before}"


def _artifacts(rig, wanted, attempts):
    """Every stored byte is what was written, and nothing is missing of a success."""
    held = list(rig.client.artifacts(wanted.id))
    last = attempts[-1].number
    mine = {each.path for each in held if each.attempt == last}
    for path in result_files(wanted.seed, wanted.steps):
        if path not in mine:
            yield f"{path} is not stored"
    paths = [(each.attempt, each.path) for each in held]
    if len(set(paths)) != len(paths):
        yield "an artifact is listed twice"
    for each in held:
        content = httpx.get(httpx.URL(rig.controller.url).join(each.url), timeout=30)
        if content.status_code != 200:
            yield f"{each.path} cannot be fetched: {content.status_code}"
        elif not each.path.endswith("manifest.json") and content.content != _due(wanted, each):
            yield f"{each.path} of attempt {each.attempt} has other bytes than were written"
    manifests = {(each.attempt, each.step) for each in held if each.path.endswith("manifest.json")}
    for attempt, step in manifests:
        names = {
            Path(each.path).name for each in held if (each.attempt, each.step) == (attempt, step)
        }
        if not names >= set(checkpoint_files(wanted.seed, step)):
            yield f"the checkpoint of step {step} is complete but lacks files: {names}"


def _due(wanted, artifact):
    if artifact.kind == "checkpoint":
        return checkpoint_files(wanted.seed, artifact.step)[Path(artifact.path).name]
    if artifact.kind == "sample":
        return sample(wanted.seed, artifact.step)
    return result_files(wanted.seed, wanted.steps).get(artifact.path)


def _script(rig, wanted, attempts):
    last = attempts[-1].number
    printed = [line.message for line in rig.client.logs(wanted.id) if line.attempt == last][1:]
    if printed != [str(number) for number in range(1, wanted.steps + 1)]:
        yield f"the script's lines are {printed[:3]} ... {printed[-3:]} ({len(printed)})"
    outputs = [each for each in rig.client.artifacts(wanted.id) if each.attempt == last]
    if [each.path for each in outputs] != ["outputs/result.txt"]:
        yield f"the script's files are {[each.path for each in outputs]}"
    for each in outputs:
        text = httpx.get(httpx.URL(rig.controller.url).join(each.url)).text
        if text != f"result of {wanted.seed}\n":
            yield f"the script's file holds {text!r}"


def left_behind(rig) -> list[str]:
    """Processes that work for no attempt, and slots that are held for none."""
    found = []
    for agent in rig.agents:
        if alive := agent.trainers():
            found.append(f"{agent.name} still runs {[each.pid for each in alive]}")
        if records := list(agent.state.glob("attempts/*/attempt.json")):
            found.append(f"{agent.name} still holds {[each.parent.name for each in records]}")
    return found + [
        f"{worker.name} has {worker.slots_free} slots free, holds {worker.jobs}"
        for worker in rig.client.workers()
        if worker.state == "online" and worker.slots_free != len(worker.inventory.slots)
    ]


def settled(rig) -> list[str]:
    """What is left behind once there was time to tidy up."""
    until = time.monotonic() + TIDY_SECONDS
    while (found := left_behind(rig)) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def usage(rig) -> float:
    """Slot-seconds that were charged so far."""
    return next(tenant.usage for tenant in rig.client.queue().tenants if tenant.path == "")


def charged(rig, job_ids: list[str], before: float) -> list[str]:
    """``usage_violations`` once the queue had time to make up for news that it missed."""
    until = time.monotonic() + TIDY_SECONDS
    while (found := usage_violations(rig, job_ids, before)) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def usage_violations(rig, job_ids: list[str], before: float) -> list[str]:
    """Slot-seconds are charged once: what these jobs added is the sum over their attempts.

    An attempt uses its slots from its claim until its program has ended, whoever notices that
    and when; while it only uploads it uses none.
    """
    due, added = held(rig, job_ids), usage(rig) - before
    if abs(added - due) > 0.01 * due + 0.1:
        return [f"{added:.2f} slot-seconds were charged, attempts held {due:.2f}"]
    return []


def held(rig, job_ids: list[str]) -> float:
    """For how many slot-seconds attempts of these jobs used slots."""
    attempts = [each for job_id in job_ids for each in rig.client.attempts(job_id)]
    return sum(len(each.slots) * _used(each) for each in attempts)


def _used(attempt) -> float:
    """Seconds from its claim until its slots were free again."""
    if attempt.claimed_at is None:
        return 0.0
    return (attempt.released_at - attempt.claimed_at).total_seconds()


def _charged_as_used(rig, attempts):
    """What is charged is what the worker's disk tells of the program, whatever broke meanwhile.

    Of what was lost only what heartbeats prove is charged. One that lay about while the controller
    stood still counts as it came, less a lease.
    """
    for attempt in attempts:
        known = _lasted(rig, attempt)
        if known is None or attempt.claimed_at is None:
            continue
        (ran, over), used = known, _used(attempt)
        held = (over - attempt.claimed_at).total_seconds()  # whoever told it shares our clock
        least = 0.0 if attempt.outcome == "lost" else ran - 0.1
        if not least <= used <= held + LEASE:
            yield f"attempt {attempt.number} ran for {ran:.2f} s, {used:.2f} s are charged"


def _lasted(rig, attempt):
    """Seconds from the first line of a journal to the end of the program as its supervisor noted
    it, and when the supervisor ended too, which waits for room for that note; if there is one."""
    for agent in rig.agents:
        run = agent.state / "attempts" / attempt.id / "run"
        if not (run / "exit.json").exists():
            continue
        note = run / "exit.json"
        ended = datetime.fromisoformat(json.loads(note.read_bytes())["ended_at"])
        written = datetime.fromtimestamp(note.stat().st_mtime, UTC)
        with (run / "journal.ndjson").open() as file:
            begun = datetime.fromisoformat(json.loads(file.readline())["at"])
        return (ended - begun).total_seconds(), max(ended, written)
    return None
