"""A worker without an agent: it says by hand what a journal is to hold."""

from collections.abc import Sequence
from typing import Any

import httpx
from fleet import Fleet, wait_for

from st_shared.protocol.endpoints import CLAIM, EVENTS, FINISH, HEARTBEAT, REGISTER

Line = dict[str, Any]


class WireWorker:
    """One CPU slot of a fleet, and the attempt that it holds."""

    def __init__(self, fleet: Fleet, name: str = "by-hand") -> None:
        self._http = httpx.Client(base_url=fleet.controller.url, timeout=30.0)
        inventory = {
            "hostname": name,
            "slots": [{"index": 0, "accelerator": "cpu", "memory_gb": 8}],
            "cpus": 4,
            "memory_gb": 8,
            "disk_free_gb": 50,
            "platform": "Linux",
        }
        body = {"name": name, "agent_version": "1", "inventory": inventory}
        token = fleet.client.create_join_token().token
        credential = self._post(REGISTER.url(), body, token)["credential"]
        self._http.headers["Authorization"] = f"Bearer {credential}"
        self._lease = {"attempt_id": "", "epoch": 0}
        self.acked = 0

    def close(self) -> None:
        self._http.close()

    def begin(self) -> str:
        """Claim what is offered next; gives the id of the job."""
        offer = wait_for("an offer", self._offer)
        claim = self._post(CLAIM.url(attempt_id=offer["attempt_id"]))
        self._lease = {"attempt_id": claim["attempt_id"], "epoch": claim["epoch"]}
        self.acked = 0
        return str(claim["job_id"])

    def ship(self, events: Sequence[Line], state: str | None = "running") -> None:
        """Journal lines, which are numbered here."""
        for start in range(0, len(events), 1000):
            numbered = [
                {"seq": seq, "at": "2026-03-01T08:00:00Z", **event}
                for seq, event in enumerate(events[start : start + 1000], self.acked + 1)
            ]
            body = {"epoch": self._lease["epoch"], "state": state, "events": numbered}
            self.acked = self._post(self._url(EVENTS), body)["acked_seq"]
            state = None

    def end(self, outcome: str = "succeeded") -> None:
        """The attempt is over."""
        said = {"epoch": self._lease["epoch"], "outcome": outcome, "last_seq": self.acked}
        self._post(self._url(FINISH), said)

    def _offer(self) -> dict[str, Any] | None:
        offers: list[dict[str, Any]] = self._post(HEARTBEAT.url(), {"deaf": True})["offers"]
        return offers[0] if offers else None

    def _url(self, endpoint: Any) -> str:
        url: str = endpoint.url(attempt_id=self._lease["attempt_id"])
        return url

    def _post(self, url: str, body: Line | None = None, secret: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {secret}"} if secret else None
        reply = self._http.post(url, json=body, headers=headers)
        assert reply.is_success, reply.text
        return reply.json() if reply.content else None


def log(message: str, level: str = "info") -> Line:
    return {"kind": "log", "level": level, "message": message}


def metric(step: int, **values: float) -> Line:
    return {"kind": "metric", "step": step, "values": values}
