"""Calls to OpenAI-compatible endpoints: what judges, who want votes, and the sampler, who wants
replies, have in common.

From the network upward: ``bounded`` ends every answer in time, ``address`` checks where texts go
and makes the client, ``chat_calls`` makes one call, ``failures`` says what a failed one means,
``waits`` how long to wait, ``pool`` how many calls run at once, and ``useless_row`` when to give
up. ``families`` is the table of what models take and cost; ``messages`` and ``redaction`` read an
answer and take out of it what must not be kept.

What a call of a model costs, and what its limit of tokens is called::

    from jaxmodpo.endpoints.families import Families
    from jaxmodpo.endpoints.usage import Usage

    family = Families.load().of("gpt-4o")
    usage = Usage(prompt=1000, cached=0, completion=100)
    print(family.limit, family.cost(usage))             # max_completion_tokens 0.0035
"""
