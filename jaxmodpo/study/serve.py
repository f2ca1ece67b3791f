"""``jaxmodpo study serve``: the web application in which raters answer, and the administrators'."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from jaxmodpo.config import builtin
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.ranges import Count, CountOrZero, Incidental, Positive
from jaxmodpo.study.place import StudyPlace, missing_package, open_place
from jaxmodpo.study.web_address import checked_url

if TYPE_CHECKING:
    from pathlib import Path

    from jaxmodpo.study.app.context import ProlificCodes
    from jaxmodpo.study.app.signed_entry import SignedEntries
    from jaxmodpo.study.app.store import Store

logger = logging.getLogger(__name__)

ADMIN_SECRET = "JAXMODPO_STUDY_ADMIN_SECRET"
UNBLINDING_SECRET = "JAXMODPO_STUDY_UNBLINDING_SECRET"

CODES = {
    "completed": "JAXMODPO_PROLIFIC_CODE_COMPLETED",
    "screened_out": "JAXMODPO_PROLIFIC_CODE_SCREENED_OUT",
    "attention_failed": "JAXMODPO_PROLIFIC_CODE_ATTENTION_FAILED",
    "withdrawn": "JAXMODPO_PROLIFIC_CODE_WITHDRAWN",
}
"""environment variables with Prolific's completion codes"""

CODE_FULL = "JAXMODPO_PROLIFIC_CODE_FULL"
"""the code of who comes when no place is left; without it that of ``screened_out``"""

_SHORTEST_SECRET = 16


@dataclass(frozen=True, kw_only=True)
class StudyServeConfig(StudyPlace, help_group="devices"):
    """Serve a study to its raters, and its progress to its administrators, until Ctrl-C. Nothing is
    loaded from elsewhere, and a rater's answer is acknowledged once it is on the disk.
    """

    host: Incidental[str] = "127.0.0.1"
    """Address to listen on for raters. Leave it as it is behind a proxy on the same machine."""
    port: Incidental[Count] = 8600
    """Port on which raters are served."""
    public_url: Incidental[str | None] = None
    """What raters' addresses begin with, as https://study.example.org. With https cookies are kept
    to secure connections. By default http, the host and the port."""
    admin_host: Incidental[str] = "127.0.0.1"
    """Address to listen on for administrators. Anything but this machine's own needs TLS before
    it."""
    admin_port: Incidental[Count] = 8601
    """Port for administrators. They sign in with the secret of JAXMODPO_STUDY_ADMIN_SECRET; without
    it nobody can, and the port stays closed."""
    trusted_proxy: Incidental[str | None] = None
    """Address of a proxy whose X-Forwarded-For and -Proto are believed."""
    abandoned_after_hours: Annotated[Positive, HelpGroup("selection")] = 24.0
    """Hours without an answer after which a rater of Prolific may lose the place to another."""
    quota: Annotated[CountOrZero, HelpGroup("selection")] = 0
    """How many raters are wanted in all. Whoever comes after them reads that the study is full;
    raters who are left out of the analysis do not count. 0 means as many as the study file has
    places for."""
    prolific_studies: Annotated[tuple[str, ...], HelpGroup("selection")] = ()
    """The studies at Prolific that raters may come from, by id, each with how many raters are
    wanted of it: ID=40, or ID alone for as many as there are places for. By default any study."""
    prolific_keys: Annotated[Incidental[str | None], HelpGroup("data")] = None
    """Believe only what Prolific has signed (its secured external URL): a file with its public
    keys, or their https address, which is asked once a day."""
    resources: Annotated[Incidental[str], HelpGroup("text")] = "crisis_resources"
    """Where raters find help, by country: a YAML file. Ours is a beginning: have it checked."""

    def check(self) -> None:
        super().check()
        if self.public_url is not None:
            checked_url(self.public_url)
        if self.port == self.admin_port:
            raise UserError(
                "--port and --admin-port must differ: raters never reach the second one"
            )
        for name in ("port", "admin_port"):
            if getattr(self, name) > 65535:
                raise UserError(f"--{name.replace('_', '-')} must be at most 65535")
        prolific_quotas(self.prolific_studies)

    def check_machine(self) -> None:
        _secrets()

    def input_paths(self) -> dict[str, Path]:
        return {"study": self.study, "resources": builtin("study", self.resources)}


def study_serve(config: StudyServeConfig) -> None:
    """Run ``study serve``.

    Raises:
        UserError: bad settings, a study file that was changed under the study, missing codes of
            Prolific, a port that is taken.
    """
    config.check()
    quotas = prolific_quotas(config.prolific_studies)
    store = open_place(
        config,
        create=True,
        abandoned_hours=config.abandoned_after_hours,
        quota=config.quota,
        prolific_quotas={study: most for study, most in quotas.items() if most},
    )
    try:
        _check_quota(config, store)
        servers = _servers(config, store)
        # What there is now stays until the end. Looking through it for garbage, which Python would
        # do now and then, takes as long as many answers.
        gc.freeze()
        asyncio.run(_serve(servers))
    finally:
        store.close()


def prolific_quotas(studies: Sequence[str]) -> dict[str, int]:
    """Return how many raters are wanted of each study at Prolific, by its id; 0 where no number is
    given.

    Args:
        studies: ``ID`` or ``ID=NUMBER`` each.

    Raises:
        UserError: no such text, or a study twice.
    """
    quotas: dict[str, int] = {}
    for text in studies:
        study, has_number, number = text.partition("=")
        is_number = number.isascii() and number.isdigit() and int(number) > 0
        if not study.isalnum() or (has_number and not is_number):
            raise UserError(
                f"--prolific-studies {text:.80}: give ID, or ID=40 for at most 40 raters"
            )
        if study in quotas:
            raise UserError(f"--prolific-studies names {study:.64} twice")
        quotas[study] = int(number or 0)
    return quotas


def _check_quota(config: StudyServeConfig, store: Store) -> None:
    """Refuse a quota for which the study has no places, and Prolific's settings without Prolific.

    Raises:
        UserError: naming the setting.
    """
    places = len(store.study.assignments)
    if config.quota > places:
        raise UserError(
            f"--quota {config.quota}: the study file has {places} places; sample it with more"
            " --raters"
        )
    is_prolific = store.study.recruitment == "prolific"
    for name in ("prolific_studies", "prolific_keys"):
        if getattr(config, name) and not is_prolific:
            raise UserError(
                f"--{name.replace('_', '-')}: raters of {config.study} come by personal links;"
                " sample it with --recruitment prolific"
            )


@dataclass(frozen=True)
class _Server:
    """A server and the socket on which it listens already."""

    server: Any
    socket: socket.socket


def _servers(config: StudyServeConfig, store: Store) -> list[_Server]:
    """Return the servers of the raters and, where there is a secret, of the administrators.

    Raises:
        UserError: see ``study_serve``.
    """
    try:
        from jaxmodpo.study.app.admin import AdminSettings, admin_application
        from jaxmodpo.study.app.context import WebSettings
        from jaxmodpo.study.app.resources import load_resources
        from jaxmodpo.study.app.web import rater_application
    except ModuleNotFoundError as error:
        raise missing_package(error) from None
    secret, unblinding_secret = _secrets()
    public_url = checked_url(config.public_url or f"http://{config.host}:{config.port}")
    settings = WebSettings(
        public_url=public_url,
        resources=load_resources(config.resources),
        codes=_codes() if store.study.recruitment == "prolific" else None,
        prolific_studies=frozenset(prolific_quotas(config.prolific_studies)),
        signed=_signed(config.prolific_keys, public_url),
    )
    application = rater_application(store, settings)
    servers = [_server(application, config.host, config.port, config.trusted_proxy)]
    logger.info(
        "study serve: raters at %s, answers in %s", public_url, store.database.shown_location
    )
    if not _is_loopback(config.host) and not settings.is_secure:
        logger.warning("study serve: %s is not secure; put TLS before it", public_url)
    if not secret:
        logger.info("study serve: no administration, since %s is not set", ADMIN_SECRET)
        return servers
    hosts = ("127.0.0.1", "localhost", config.admin_host)
    admin_settings = AdminSettings(secret, unblinding_secret, public_url, hosts)
    admin = admin_application(store, admin_settings)
    servers.append(_server(admin, config.admin_host, config.admin_port, None))
    logger.info("study serve: administration at http://%s:%d", config.admin_host, config.admin_port)
    return servers


def _secrets() -> tuple[str, str]:
    """Return the administrators' secret and the one that unblinds; empty where there is none.

    Raises:
        UserError: too short to withstand guessing, or both the same.
    """
    secret = os.environ.get(ADMIN_SECRET, "")
    unblinding = os.environ.get(UNBLINDING_SECRET, "")
    for name, value in ((ADMIN_SECRET, secret), (UNBLINDING_SECRET, unblinding)):
        if value and len(value) < _SHORTEST_SECRET:
            raise UserError(f"{name} needs at least {_SHORTEST_SECRET} characters")
    if secret and secret == unblinding:
        raise UserError(f"{ADMIN_SECRET} and {UNBLINDING_SECRET} must differ")
    return secret, unblinding


def _codes() -> ProlificCodes:
    from jaxmodpo.study.app.context import ProlificCodes

    missing = [name for name in CODES.values() if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"a study of Prolific needs its completion codes in the environment: {', '.join(missing)}"
        )
    codes = {field: os.environ[name] for field, name in CODES.items()}
    return ProlificCodes(**codes, full=os.environ.get(CODE_FULL, ""))


def _signed(keys: str | None, public_url: str) -> SignedEntries | None:
    """Return what reads Prolific's tokens; None where it does not sign.

    Raises:
        UserError: the file holds no keys.
    """
    if keys is None:
        return None
    from jaxmodpo.study.app.signed_entry import KeyFile, SignedEntries

    key_file = KeyFile(keys)
    key_file.check()
    return SignedEntries(key_file, urlsplit(public_url).hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _server(application: Any, host: str, port: int, proxy: str | None) -> _Server:
    """Return a server that listens already.

    Raises:
        UserError: it cannot listen there.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """A server that leaves signals to whoever runs it."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    settings = uvicorn.Config(
        application,
        host=host,
        port=port,
        # Addresses are logged nowhere.
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=True,
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy or "",
        timeout_keep_alive=15,
        limit_concurrency=1000,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        # Newer Pythons add to the error's own text what this sentence says already.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error
        raise UserError(
            f"cannot listen on {host}, port {port}: {reason}; name another port"
        ) from None
    # Connections take this over; asyncio sets it only on sockets that name their protocol. Without
    # it the second part of an answer waits until a browser confirms the first, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _Server(Server(settings), listening)


async def _serve(servers: Sequence[_Server]) -> None:
    """Serve until SIGINT or SIGTERM; requests that are being answered are answered first."""

    def end() -> None:
        for running in servers:
            running.server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    await asyncio.gather(*(running.server.serve(sockets=[running.socket]) for running in servers))
