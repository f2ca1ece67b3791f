"""What calls to an endpoint will cost before any is made: dollars, from a table of models' prices
and the tokens of usual texts.

Without a price, of a model that the table does not know, the sum is unknown and not nothing::

    cost = Cost(judge_calls=1200)
    pay_judge(cost, config, "rank", replies=5, criteria=6)
    cost.dollars, cost.unknown
"""

from __future__ import annotations

from typing import Literal

from jaxmodpo.costs import CHARACTERS_PER_TOKEN, REPLY_TOKENS, Cost, PaidJudgeSettings
from jaxmodpo.criteria import load_criteria

PERSONA_TOKENS = 330
"""of a usual profile"""
QUESTION_TOKENS = 55
"""of a usual post"""
INSTRUCTION_TOKENS = 20
"""around a post that is put to an endpoint"""


def pay_calls(cost: Cost, table: str, model: str, calls: int, prompt: float, answer: float) -> None:
    """Add the price of so many calls, or say that it is not known.

    Args:
        cost: gains the dollars.
        table: of what models cost: a YAML file, or the name of ours.
        model: as the endpoint knows it; empty where none is named.
        calls: how many.
        prompt: tokens of one.
        answer: tokens of one.
    """
    from jaxmodpo.endpoints.families import Families
    from jaxmodpo.endpoints.usage import Usage

    # A variable without a value keeps its name.
    if not model or model.startswith("$"):
        cost.dollars = None
        cost.unknown.append("no model is named for the endpoint")
        return
    usage_of_call = Usage(round(prompt), 0, round(answer))
    price = Families.load(table).of(model).cost(usage_of_call)
    if price is None:
        cost.dollars = None
        cost.unknown.append(f"the table '{table}' has no price of {model}")
    else:
        cost.dollars = (cost.dollars or 0.0) + price * calls


def pay_replies(cost: Cost, model: str, replies: int, longest: int, table: str) -> None:
    """Add the price of so many replies of an endpoint's model, of usual length and at most
    ``longest`` tokens.
    """
    prompt = QUESTION_TOKENS + INSTRUCTION_TOKENS
    answer = min(REPLY_TOKENS, longest)
    pay_calls(cost, table, model, replies, prompt, answer)


def pay_judge(
    cost: Cost,
    config: PaidJudgeSettings,
    kind: Literal["rank", "compare", "score"],
    replies: int,
    criteria: int,
    ties: bool = False,
) -> None:
    """Add the price of a judge's calls; nothing where no endpoint judges.

    Args:
        cost: says how many calls there are, and gains the dollars.
        config: the judge's settings.
        kind: what the judge is asked to do.
        replies: that each call shows.
        criteria: that each call asks about.
        ties: whether a call may end in a tie.
    """
    from jaxmodpo.endpoints.families import Families
    from jaxmodpo.judging.forecast import Shape, answer_tokens, framing
    from jaxmodpo.judging.prompts import Prompts

    if config.judge not in ("endpoint", "batch"):
        return
    assert cost.judge_calls is not None
    selected_criteria = tuple(load_criteria(config.criteria, config.only)[:criteria])
    prompts = Prompts.load(config.prompts)
    # All that a prompt holds besides the persona, the question and the replies.
    frame = framing(prompts, Shape(kind, selected_criteria, replies, ties))
    frame_tokens = len(frame) / CHARACTERS_PER_TOKEN
    prompt = frame_tokens + PERSONA_TOKENS + QUESTION_TOKENS + replies * REPLY_TOKENS
    answer = answer_tokens(kind, criteria, replies)
    pay_calls(cost, config.model_table, config.judge_model, cost.judge_calls, prompt, answer)
    if config.judge == "batch" and cost.dollars is not None:
        discount = Families.load(config.model_table).batch_discount
        cost.dollars *= 1 - discount
