"""Replies from a model behind an OpenAI-compatible endpoint: the other engine of ``responses``.

It serves comparisons with models that cannot be loaded here, such as the paper's GPT-4o. The question is put as in
the instruct prompt, without a system message. Posts are people's words: they go to another machine only where
that was asked for. A reply is on disk before it counts, so that none is paid for twice.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tqdm import tqdm

from jaxmodpo.artifacts import Journal, Question
from jaxmodpo.data.text import INSTRUCTION
from jaxmodpo.endpoints import HOPELESS_CODES, checked_key, make_client
from jaxmodpo.errors import UserError
from jaxmodpo.sampling.journal import place, row, sampled

logger = logging.getLogger(__name__)


class Endpoint(NamedTuple):
    """Where to ask, and how.

    Attributes:
        base_url: up to and with ``/v1``.
        model: by the endpoint's name.
        api_key_env: the environment variable that holds the key; a server on this machine needs none.
        send_questions: allow posts to go to another machine.
        temperature: None sends none, since some models take none.
        top_p: 1 sends none.
        max_tokens: of a reply.
        max_concurrency: calls at once.
    """

    base_url: str
    model: str
    api_key_env: str
    send_questions: bool
    temperature: float | None
    top_p: float
    max_tokens: int
    max_concurrency: int


def check(endpoint: Endpoint) -> str:
    """Return the key, or refuse settings that cannot work.

    Raises:
        UserError: no model, an unusable URL, no key, or posts that may not be sent.
    """
    if not endpoint.model:
        raise UserError("--engine endpoint needs --endpoint-model; there is no default model")
    key = checked_key(
        endpoint.base_url,
        endpoint.api_key_env,
        texts="people's posts",
        allowed=endpoint.send_questions,
        flag="--send-questions",
    )
    if endpoint.max_concurrency < 1:
        raise UserError(f"--max-concurrency is {endpoint.max_concurrency}; it must be at least 1")
    return key


def ask(
    endpoint: Endpoint, wanted: Sequence[tuple[Question, int]], journal: Journal, settings: str = ""
) -> list[dict[str, Any]]:
    """Ask for what the journal does not hold yet.

    Args:
        endpoint: where.
        wanted: question and number of every reply.
        journal: gains a row per reply: what it belongs to, ``response_text``, ``ended``, the answering ``model``.
        settings: digest of the run's settings.

    Returns:
        A row for each of ``wanted``.

    Raises:
        UserError: the endpoint said what holds for every call; or some calls failed, which the next run asks again.
    """
    key = check(endpoint)
    client = make_client(endpoint.base_url, key, timeout=300.0, max_retries=5)
    have = sampled(journal, settings)
    missing = [reply for reply in wanted if place(*reply) not in have]
    failures: list[str] = []
    bar = tqdm(total=len(wanted), initial=len(have), desc="asking", disable=not sys.stderr.isatty(), leave=False)
    with concurrent.futures.ThreadPoolExecutor(endpoint.max_concurrency) as pool:
        # Never more waiting than are asked: a hopeless answer ends the run with few calls still under way.
        queue, running = iter(missing), set()
        try:
            while True:
                while len(running) < endpoint.max_concurrency and (reply := next(queue, None)) is not None:
                    running.add(pool.submit(_one, client, endpoint, row(*reply, settings), reply[0].question_text))
                if not running:
                    break
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    _keep(future.result(), journal, failures, key)
                    running.discard(future)
                    bar.update()
        finally:
            bar.close()
            pool.shutdown(wait=True, cancel_futures=True)
            # What was under way when another call ended the run is paid for all the same.
            for future in running:
                if not future.cancelled() and future.exception() is None:
                    _keep(future.result(), journal, failures, key)
    if failures:
        raise UserError(
            f"{len(failures)} of {len(wanted)} calls to {endpoint.base_url} failed, the last one with: "
            f"{failures[-1][:300]}; the same command asks for those alone"
        )
    have = sampled(journal, settings)
    return [have[place(*reply)] for reply in wanted]


def _keep(answer: dict[str, Any], journal: Journal, failures: list[str], key: str) -> None:
    if "error" in answer:
        failures.append(answer["error"].replace(key, "[key]") if key else answer["error"])
    else:
        journal.append(answer)


def _one(client: Any, endpoint: Endpoint, begun: dict[str, Any], question: str) -> dict[str, Any]:
    import openai

    # OpenAI's newer models refuse max_tokens; other servers know nothing else.
    openais = (urlsplit(endpoint.base_url).hostname or "").endswith("openai.com")
    settings: dict[str, Any] = {"max_completion_tokens" if openais else "max_tokens": endpoint.max_tokens}
    if endpoint.temperature is not None:
        settings["temperature"] = endpoint.temperature
    if endpoint.top_p < 1:
        settings["top_p"] = endpoint.top_p
    try:
        completion = client.chat.completions.create(
            model=endpoint.model,
            messages=[{"role": "user", "content": INSTRUCTION.format(question=question)}],
            **settings,
        )
        choice = completion.choices[0]
        text, ended = str(choice.message.content or "").strip(), choice.finish_reason == "stop"
        model = str(completion.model or endpoint.model)
    except openai.APIStatusError as error:
        if error.status_code in (401, 404) or error.code in HOPELESS_CODES:
            said = {401: f"refused the key in {endpoint.api_key_env}", 404: f"has no model {endpoint.model}"}
            reason = said.get(error.status_code, f"said {error.code} for the model {endpoint.model}")
            raise UserError(f"{endpoint.base_url} {reason}") from None
        return {"error": f"HTTP {error.status_code}: {error.message}"}
    except (openai.APIError, ValueError, AttributeError, IndexError, TypeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return begun | {"response_text": text, "ended": ended, "model": model}
