"""`check`: whether address, TLS, key, project, and cluster are good."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from ...core.clock import ServerClock
from ...core.errors import AccessRefused, AgentError, NotFound, RequestRefused, TlsError
from ...core.events import CheckDone
from ...core.settings import Connection, Services, Target
from ...network.opsmanager import OpsManager
from ...network.tls import trust_store
from .asking import Asker

_CLOSE_ENOUGH = 2.0  # seconds; a Date header has whole seconds

_MOST_CLUSTERS = 50


class Check:
    """Checks in the order address, tls, proxy, key, project, cluster, version, clock.

    `found` gets each result as soon as it is known. The `group_id` of `target` may be empty, and its cluster missing.
    """

    def __init__(
        self, connection: Connection, target: Target, services: Services, found: Callable[[CheckDone], None]
    ) -> None:
        self._connection, self._target, self._services, self._found = connection, target, services, found
        self._clock, self._asker = ServerClock(services.clock), Asker(services)
        self._reported: set[str] = set()
        self._project: str | None = None
        self.ops_manager: str | None = None

    async def run(self) -> None:
        """Check everything. Raises the first error, after all results were reported."""
        async with OpsManager(self._connection, self._clock, self._services.redactor) as api:
            self.ops_manager = api.origin
            await self._connect(api)
            await self._cluster(api)
            self._pass_rest(api)

    async def _connect(self, api: OpsManager) -> None:
        """Check address, TLS, proxy, and key with the first answer, which is about the project if it is given."""
        try:
            problem = await self._first_answer(api)
        except TlsError as error:
            self._pass("address", f"{api.origin} accepts connections")
            self._fail("tls", error, api)
        except AccessRefused as error:
            self._reached(api)
            self._fail("key", error, api)
        except AgentError as error:
            self._fail("address", error, api)
        self._reached(api)
        self._pass("key", f"{self._connection.public_key} is accepted")
        if problem:
            self._fail("project", problem, api)
        if self._target.group_id:
            self._pass("project", _named(self._target.group_id, self._project) + await self._clusters(api))

    async def _first_answer(self, api: OpsManager) -> AgentError | None:
        """Ask for the project or, if none is given, for the root of the API. Return an error of the project alone."""
        if not self._target.group_id:
            try:
                await self._asker.ask(api.root)
            except NotFound as error:
                raise RequestRefused(f"{api.origin} has no API of Ops Manager: {error.message}") from None
            return None
        try:
            self._project = await self._asker.ask(lambda: api.group(self._target))
        except NotFound as error:
            return error
        except AccessRefused as error:
            if not await self._accepts_key(api):
                raise
            return error
        return None

    async def _accepts_key(self, api: OpsManager) -> bool:
        try:
            await self._asker.ask(api.root)
        except AgentError:
            return False
        return True

    async def _clusters(self, api: OpsManager) -> str:
        """Return the clusters of the project, if none is given: their IDs are hard to find elsewhere."""
        if self._target.cluster_id or self._target.host_id:
            return ""
        try:
            found = await self._asker.ask(lambda: api.clusters(self._target))
        except AgentError:  # only a hint depends on it
            return ""
        shown = [_named(cluster.id, cluster.name) for cluster in found[:_MOST_CLUSTERS]]
        more = [f"{len(found) - _MOST_CLUSTERS} more"] if len(found) > _MOST_CLUSTERS else []
        return "; clusters: " + (", ".join([*shown, *more]) or "none")

    async def _cluster(self, api: OpsManager) -> None:
        target = self._target
        place = target.cluster_id or target.host_id
        if not place:
            return
        try:
            name = await self._asker.ask(lambda: api.cluster(target))
        except AgentError as error:
            self._fail("cluster", error, api)
        self._pass("cluster", _named(place, name))

    def _reached(self, api: OpsManager) -> None:
        self._pass("address", f"{api.origin} answers")
        self._pass("tls", self._tls(api))
        self._pass("proxy", str(api.proxy or "none"))

    def _pass_rest(self, api: OpsManager) -> None:
        """Report what any answer shows."""
        self._pass("version", api.server_version or "unknown: the server does not report it")
        self._pass("clock", self._clock_difference())

    def _tls(self, api: OpsManager) -> str:
        if not api.origin.startswith("https:"):
            return "not used: --url begins with http://"
        client = f"; client certificate {self._connection.client_cert}" if self._connection.client_cert else ""
        return f"certificate trusted by {trust_store(self._connection, api.tls)}{client}"

    def _clock_difference(self) -> str:
        if not self._clock.observed:
            return "unknown: the server sends no Date"
        ahead = self._clock.now() - self._services.clock.wall()
        if abs(ahead) < _CLOSE_ENOUGH:
            return "no difference to this host"
        return f"the server is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this host"

    # ------------------------------------------------------------ results

    def _pass(self, name: str, detail: str) -> None:
        self._report(CheckDone(name, True, detail))

    def _report(self, done: CheckDone) -> None:
        self._reported.add(done.check)
        self._found(done)

    def _fail(self, name: str, error: AgentError, api: OpsManager) -> NoReturn:
        """Report a failed check, those that it prevents, and what is known in spite of it. Raises the error."""
        self._report(CheckDone(name, False, error.message))
        target = self._target
        wanted = {"project": target.group_id, "cluster": target.cluster_id or target.host_id}
        for other in ("tls", "proxy", "key", "project", "cluster"):
            if other not in self._reported and wanted.get(other, True):
                proxy = f": {api.proxy}" if other == "proxy" and api.proxy else ""
                self._report(CheckDone(other, None, f"not checked{proxy}"))
        if self._clock.observed:
            self._pass_rest(api)
        else:
            for other in ("version", "clock"):
                self._report(CheckDone(other, None, "not checked"))
        raise error


def _named(identifier: str, name: str | None) -> str:
    return f"{identifier} ({name})" if name else identifier
