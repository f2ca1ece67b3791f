"""Calls to OpenAI-compatible endpoints: what judges, who want votes, and the sampler, who wants
replies, have in common.

From the network upward: ``bounded`` ends every answer in time, ``address`` checks where texts go
and makes the client, ``chat_calls`` makes one call, ``failures`` says what a failed one means,
``waits`` how long to wait, ``pool`` how many calls run at once, and ``useless_row`` when to give
up. ``families`` is the table of what models take and cost; ``messages`` and ``redaction`` read an
answer and take out of it what must not be kept.
"""
