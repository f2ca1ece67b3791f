"""What calls to an endpoint will cost before any is made: dollars, from a table of models' prices
and the tokens of usual texts.

Without a price, of a model that the table does not know, the sum is unknown and not nothing::

    cost = Cost(endpoint_replies=1200)
    pay_replies(cost, "gpt-5-mini", replies=1200, longest=512, table="models")
    cost.dollars, cost.unknown
"""

from __future__ import annotations

from jaxmodpo.costs import REPLY_TOKENS, Cost
from jaxmodpo.endpoints.families import Families
from jaxmodpo.endpoints.usage import Usage

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
