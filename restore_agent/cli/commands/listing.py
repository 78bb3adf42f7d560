"""Commands that ask Ops Manager for a list and show all of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ...core.clock import ServerClock, SystemClock
from ...core.events import Event
from ...core.settings import Services, Target
from ...network.opsmanager import OpsManager
from ...restore.request.asking import Asker
from ..config import cluster
from ..session import Session, run_loop
from .results import Results

_Item = TypeVar("_Item")
_Row = TypeVar("_Row", bound=Event)


def show_list(
    session: Session,
    read: Callable[[OpsManager, Target], Awaitable[Sequence[_Item]]],
    listed: Callable[[Sequence[_Item]], list[_Row]],
    rows: Callable[[Sequence[_Row], int, float], list[str]],
) -> int:
    """Read a list from Ops Manager and print it as JSON or as the text `rows(list, width, now)`; return the exit code.

    `listed` orders the list and returns the event of each item. Raises AgentError.
    """
    reach, target = cluster(session.values)
    results, services = Results(session, target), Services(session.console, SystemClock(), session.redactor)
    clock = ServerClock(services.clock)

    async def ask() -> Sequence[_Item]:
        async with OpsManager(reach, clock, session.redactor) as api:
            results.ops_manager = api.origin
            return await Asker(services).ask(lambda: read(api, target))

    found = listed(run_loop(ask))
    results.show(found, lambda width: rows(found, width, clock.now()))
    return results.finish()
