"""Where an endpoint's judge is and how it is asked: its settings, and what they must hold.

Apart from the judge, since a run is checked and priced, and its identity is computed, without a
client, a key or a thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxmodpo.endpoints import address
from jaxmodpo.endpoints.families import Families, Family
from jaxmodpo.errors import UserError
from jaxmodpo.judging.prompts import Prompts


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        base_url: up to and with ``/v1``.
        model: asked for by this name; there is no default.
        api_key_env: the environment variable that holds the key; a server on this machine needs
            none.
        temperature: None sends none, which reasoning models require.
        max_answer_tokens: of one answer; None sends no limit.
        structured: how the form of the answer is demanded.
        send_personas: allow persona profiles to go to another machine.
        timeout: of one attempt, in seconds.
        attempts: before a request counts as failed; waiting for a rate limit is no attempt.
        max_concurrency: calls at once, at most.
        prompts: a file of templates.
        model_table: a table of models' families.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float | None = None
    max_answer_tokens: int | None = None
    structured: str = "json_schema"
    send_personas: bool = False
    timeout: float = 120.0
    attempts: int = 5
    max_concurrency: int = 32
    prompts: str = "prompts"
    model_table: str = "models"


def checked_key(endpoint: Endpoint) -> str:
    """Return the key from the environment, or refuse settings that cannot work."""
    if not endpoint.model:
        raise UserError("--judge endpoint needs --judge-model; there is no default model")
    return address.checked_key(
        endpoint.base_url,
        endpoint.api_key_env,
        texts="persona profiles",
        allowed=endpoint.send_personas,
        flag="--send-personas",
    )


def checked_family(endpoint: Endpoint) -> Family:
    """Return the family of the endpoint's model, or refuse what it does not take."""
    family = _family_of(endpoint)
    # Others may serve a model of that name for as long as they like.
    if family.withdrawn and "api.openai.com" in endpoint.base_url:
        raise UserError(
            f"the model {endpoint.model} was withdrawn in {family.withdrawn}; name another by"
            " --judge-model"
        )
    if endpoint.temperature and not family.temperature:
        raise UserError(f"the model {endpoint.model} takes no temperature; leave --temperature out")
    return family


def check_budget(endpoint: Endpoint, budget: float | None) -> None:
    """Refuse a model that cannot be asked, or whose price a budget in dollars would have to know.

    Raises:
        UserError: what :func:`checked_family` refuses, or a budget and no price.
    """
    family = checked_family(endpoint)
    has_no_price = family.prompt is None or family.answer is None
    if budget is not None and has_no_price:
        raise UserError(
            f"--budget needs the price of {endpoint.model}, which the table"
            f" '{endpoint.model_table}' does not have; add it to a table of your own"
            " (--model-table) or limit the calls (--budget-calls)"
        )


def fitting_endpoint(endpoint: Endpoint) -> Endpoint:
    """Return the settings as they are sent: a temperature of 0, which files of settings have, where
    it is taken.
    """
    if endpoint.temperature == 0 and not _family_of(endpoint).temperature:
        return replace(endpoint, temperature=None)
    return endpoint


def _family_of(endpoint: Endpoint) -> Family:
    return Families.load(endpoint.model_table).of(endpoint.model)


def endpoint_identity(endpoint: Endpoint, prompts: Prompts) -> str:
    """Name everything that shapes an endpoint's answers."""
    # Keys of votes are hashes of this: a word changed here makes every vote in every ledger one of
    # another judge. How fast or by which key it is asked is left out, since that shapes no answer.
    settings = {
        "endpoint": endpoint.base_url,
        "model": endpoint.model,
        "temperature": endpoint.temperature,
        "prompts": prompts.version,
        "structured": endpoint.structured,
        "max_answer_tokens": endpoint.max_answer_tokens,
    }
    return "; ".join(f"{name} {value}" for name, value in settings.items())
