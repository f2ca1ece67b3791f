"""What a tokenizer's chat template writes before and after a question.

A template is a program that comes with a model's folder: it may raise, never end, ask for more
memory than there is, or write today's date. It is run once, on stand-ins for a question, in a
process of its own with limits; what stands around the stand-in is put around every question from
then on. So one run sees one template and one day, and a template that does something else with a
question than to trim it is refused.

How it is found out: the template is rendered with a word that no template contains, and what stands
before and after that word is head and tail. A second question, long and full of signs, must come
out between the same two. Two more renderings, on other days, tell whether the prompt is dated::

    around = surroundings(template, {"bos_token": "<s>"}, "2026-01-31", "Mistral-7B")
    around.head, around.tail            # "<s>[INST] ", " [/INST]"
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodpo.errors import UserError
from jaxmodpo.parsing import JsonObject

SECONDS = 5
"""of computing time that a template may take"""
MEMORY = 2**30
"""bytes that it may add to what Python takes"""
LONGEST = 2**20
"""characters that it may write"""
START = 300
"""seconds, for a busy machine to start a process and let it do all that"""

CLOCK = "datetime"
"""the class that transformers asks for today, by its name in
``transformers.utils.chat_template_utils``"""

STAND_IN = "question5f1c"
# A question as people write them, for what a template may do to one: trim it, cut it, escape it,
# change its letters.
LONG_STAND_IN = (
    f' \n\t{STAND_IN}: I\'m <b>"sad"</b> & {{{{ 7 }}}}, \\n\n\n  Why? é'
    f" {'And then … ' * 3000}end \n"
)
OTHER_DAYS = ("2001-02-03", "2002-12-31")
"""of another weekday, month and year each"""

TRIMS = {"": str, "both": str.strip, "left": str.lstrip, "right": str.rstrip}
"""what a template does with the space around a question"""


@dataclass(frozen=True)
class Surroundings:
    """A prompt's own text.

    Attributes:
        head: before the question.
        tail: after it.
        trim: which ends of the question lose their space, a key of ``TRIMS``.
        dated: whether another day would give another text.
    """

    head: str
    tail: str
    trim: str = ""
    dated: bool = False

    def fit(self, question: str) -> str:
        """Return a question as it stands in the prompt."""
        return TRIMS[self.trim](question)


def surroundings(
    template: str, special_tokens: Mapping[str, Any], day: str, folder: str
) -> Surroundings:
    """Run a chat template for a conversation of one question.

    Args:
        template: the tokenizer's.
        special_tokens: names that the template may use, such as ``bos_token``.
        day: ``YYYY-MM-DD``, what it takes for today.
        folder: of the tokenizer, for errors.

    Raises:
        UserError: the template raises, takes too long or too much memory, or does more with the
            question than trimming.
    """
    return _surroundings(template, json.dumps(dict(special_tokens), sort_keys=True), day, folder)


@functools.lru_cache(maxsize=8)
def _surroundings(template: str, special_tokens: str, day: str, folder: str) -> Surroundings:
    # All in one process: it takes a second to start, and a template that counts its calls or draws
    # numbers would give itself away.
    renderings = [(STAND_IN, day), (LONG_STAND_IN, day)]
    renderings += [(STAND_IN, other_day) for other_day in OTHER_DAYS]
    texts = _run(template, json.loads(special_tokens), renderings, folder)
    short, long, *on_other_days = texts
    if re.search("[\ud800-\udfff]", short):
        raise UserError(
            f"the chat template of {folder} writes half of a surrogate pair, which is no character;"
            " mend the template, or take --prompt-style instruct"
        )
    head, *tails = short.split(STAND_IN)
    if len(tails) != 1:
        raise UserError(
            f"the chat template of {folder} writes a question {len(tails)} times, and not once;"
            " mend the template, or take --prompt-style instruct"
        )
    tail = tails[0]
    dated = any(text != short for text in on_other_days)
    for trim, trimmed in TRIMS.items():
        if long == head + trimmed(LONG_STAND_IN) + tail:
            return Surroundings(head, tail, trim, dated)
    raise UserError(
        f"the chat template of {folder} changes a question's own text, or writes another text each"
        " time; mend the template, or take --prompt-style instruct"
    )


def _run(
    template: str, special_tokens: JsonObject, renderings: list[tuple[str, str]], folder: str
) -> list[str]:
    """Return what the template makes of each question and day, from a process with limits."""
    task = json.dumps(
        {"template": template, "special_tokens": special_tokens, "renderings": renderings}
    )
    # As a file, with nothing of its folder to be imported: it needs transformers alone.
    command = [sys.executable, "-P", str(Path(__file__).resolve())]
    try:
        process = subprocess.run(
            command, input=task.encode(), capture_output=True, timeout=START, check=False
        )
        answer = json.loads(process.stdout) if process.returncode == 0 else {}
    except (subprocess.TimeoutExpired, ValueError):
        answer = {}
    if "texts" in answer:
        return answer["texts"]
    reason = answer.get(
        "error", f"it took more than {SECONDS} seconds or {MEMORY // 2**20} MiB of memory"
    )
    raise UserError(
        f"the chat template of {folder} cannot be used: {reason}; mend the template, or take"
        " --prompt-style instruct"
    )


def _limit() -> None:
    """Limit what this process may take from here on, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        # Limits count from the process's start, and importing transformers took its share.
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        # A process that is killed at its limit leaves no image of its memory on the disk.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _render(task: Mapping[str, Any]) -> list[str]:
    """Render a template as transformers does, each time on the day that the task names."""
    from transformers.utils import chat_template_utils

    class Today(datetime.datetime):
        """What ``strftime_now`` asks."""

        text = ""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return datetime.datetime.fromisoformat(cls.text)

    texts = []
    # ``strftime_now`` of a template asks this module's class, whatever the system's clock says.
    clock = getattr(chat_template_utils, CLOCK)
    setattr(chat_template_utils, CLOCK, Today)
    try:
        for question, day in task["renderings"]:
            Today.text = day
            rendered, _ = chat_template_utils.render_jinja_template(
                conversations=[[{"role": "user", "content": question}]],
                chat_template=task["template"],
                add_generation_prompt=True,
                **task["special_tokens"],
            )
            if len(rendered[0]) > LONGEST:
                raise ValueError(f"it writes {len(rendered[0])} characters around a question")
            texts.append(rendered[0])
    finally:
        setattr(chat_template_utils, CLOCK, clock)
    return texts


def _answer(task: Mapping[str, Any]) -> JsonObject:
    """Return ``texts``, or an ``error`` in words; neither where there was not enough memory."""
    try:
        return {"texts": _render(task)}
    except MemoryError:
        return {}
    except Exception as error:  # whatever a stranger's program raises
        words = " ".join(str(error).split())[:200]
        return {"error": f"it raises {type(error).__name__}: {words}"}


def _main() -> None:
    import transformers.utils.chat_template_utils  # noqa: F401 - before what is limited begins

    _limit()
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    _main()
