"""Puts an agent together and lets it work: what ``st-worker join`` does once it has its options."""

from pydantic import ValidationError

from st_shared import __version__
from st_shared.protocol.worker import RegisterRequest
from st_worker.agent import Agent
from st_worker.client import Controller
from st_worker.errors import UsageError
from st_worker.folder import StateFolder
from st_worker.inventory import open_nvml, take_inventory
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer


def describe(
    folder: StateFolder, name: str, slots: int | None, labels: dict[str, str], ephemeral: bool
) -> RegisterRequest:
    """What the worker says of itself.

    Raises:
        UsageError: a value that the protocol does not take, or more GPUs than there are.
    """
    try:
        return RegisterRequest(
            name=name,
            agent_version=__version__,
            inventory=take_inventory(folder.root, slots, open_nvml()),
            labels=labels,
            ephemeral=ephemeral,
        )
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in wrong["loc"])
        raise UsageError(f"{field}: {wrong['msg']}; got {wrong['input']!r}") from None


async def serve(
    url: str,
    folder: StateFolder,
    token: str | None,
    description: RegisterRequest,
    settings: AgentSettings,
) -> int:
    """Work for the controller at ``url`` until told to leave; the exit code comes back.

    Raises:
        UsageError: another agent runs on ``folder``, or there is neither credential nor token.
        Refused: the controller takes neither.
    """
    with folder.lock():
        folder.forget_half_fetched()
        controller, transfer = Controller(url, settings), Transfer(url, settings)
        agent = Agent(folder, controller, transfer, description, settings, nvml=open_nvml())
        agent.leave_on_signals()
        try:
            return (await agent.run(token)).exit_code
        finally:
            await controller.close()
            await transfer.close()
