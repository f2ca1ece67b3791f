"""Where an endpoint that replies is and how it is asked: its settings, and what its model takes.

Apart from the asking, since a run is checked and priced without a client, a key or a thread.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from jaxmodpo.data.text import INSTRUCTION, PromptStyle
from jaxmodpo.endpoints.address import checked_key, is_local
from jaxmodpo.endpoints.families import Families, Family
from jaxmodpo.errors import UserError
from jaxmodpo.ranges import Count, Incidental, Settings


@dataclass(frozen=True, kw_only=True)
class EndpointOptions(Settings, help_group="endpoint"):
    """Where a model behind a URL is, and how it may be called."""

    base_url: str = "https://api.openai.com/v1"
    """Address of the endpoint, up to and with /v1."""
    endpoint_model: str = ""
    """Model that the endpoint is asked for. It has no default."""
    api_key_env: Incidental[str] = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key."""
    send_questions: Incidental[bool] = False
    """Let people's posts go to an endpoint that is not on this machine."""
    max_concurrency: Incidental[Count] = 32
    """Most calls to the endpoint at once. Fewer are made where it pushes back."""
    model_table: Incidental[str] = "models"
    """Table of what models take and cost: a YAML file, or the name of ours. Give your own where a
    price is missing, or where a model takes other settings than it says."""
    dry_run: Incidental[bool] = False
    """Say what the endpoint would be asked and what it would cost, and ask nothing."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where to ask, and how.

    Attributes:
        base_url: up to and with ``/v1``.
        model: by the endpoint's name.
        api_key_env: the environment variable that holds the key; a server on this machine needs
            none.
        send_questions: allow posts to go to another machine.
        temperature: None sends none, since some models take none.
        top_p: 1 sends none.
        max_tokens: of a reply.
        stop: texts before which a reply ends.
        seed: of the run; each reply has its own.
        prompt_style: ``instruct`` sends the paper's instruction with the question, ``chat`` the
            question alone; the endpoint puts its model's chat template around either.
        max_concurrency: calls at once, at most.
        model_table: a table of models' families.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    send_questions: bool = False
    temperature: float | None = None
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0
    prompt_style: PromptStyle = "instruct"
    max_concurrency: int = 32
    model_table: str = "models"

    @functools.cached_property
    def family(self) -> Family:
        """What the table says of the model."""
        return Families.load(self.model_table).of(self.model)

    def prompt(self, question: str) -> str:
        """Return the message that asks for a reply to a question."""
        return (
            INSTRUCTION.format(question=question) if self.prompt_style == "instruct" else question
        )


def check_endpoint(endpoint: Endpoint) -> None:
    """Refuse settings with which nobody can be asked.

    Raises:
        UserError: no model, an unusable URL, a withdrawn model, or a setting that the model does
            not take.
    """
    if not endpoint.model:
        raise UserError("--engine endpoint needs --endpoint-model; there is no default model")
    is_local(endpoint.base_url)
    if "" in endpoint.stop:
        raise UserError(
            "--stop holds an empty text, before which every reply would end; leave it out"
        )
    # A variable without a value keeps its name; a dry run checks the settings all the same.
    if endpoint.model.startswith("$"):
        return
    family = endpoint.family
    # Others may serve a model of that name for as long as they like.
    if family.withdrawn and "api.openai.com" in endpoint.base_url:
        raise UserError(
            f"the model {endpoint.model} was withdrawn in {family.withdrawn}; name another by"
            " --endpoint-model"
        )
    _refuse_untaken(endpoint, family)


def _refuse_untaken(endpoint: Endpoint, family: Family) -> None:
    """Refuse the settings that the model does not take: one that was left out in silence would be
    believed to shape the replies.
    """
    untaken: list[str] = []
    remedies: list[str] = []
    if endpoint.temperature is not None and not family.temperature:
        untaken.append("temperature")
        remedies.append("--temperature None")
    if endpoint.top_p < 1 and not family.top_p:
        untaken.append("top_p")
        remedies.append("--top-p 1")
    if endpoint.stop and not family.stop:
        untaken.append("stop")
        remedies.append("no --stop")
    # A seed of 0, the default, is nobody's wish, and is not sent to a model that takes none.
    if endpoint.seed and not family.seed:
        untaken.append("seed")
        remedies.append("--seed 0")
    if untaken:
        raise UserError(
            f"the model {endpoint.model} takes no {' and no '.join(untaken)}; give"
            f" {' and '.join(remedies)}, or a --model-table that says otherwise"
        )


def endpoint_key(endpoint: Endpoint) -> str:
    """Return the key.

    Raises:
        UserError: as :func:`check_endpoint`; no key, or posts that may not be sent.
    """
    check_endpoint(endpoint)
    return checked_key(
        endpoint.base_url,
        endpoint.api_key_env,
        texts="people's posts",
        allowed=endpoint.send_questions,
        flag="--send-questions",
    )
