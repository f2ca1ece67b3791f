"""Preference pairs in every layout that people have: the authors', TRL's, HH-RLHF's; and pairs made of rankings.

All become :class:`~jaxmodpo.records.Pair`, so that training knows one layout. Question and
response ids are made from the texts where a file has none.
"""

from __future__ import annotations

import collections
import gzip
import itertools
import logging
import math
import re
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxmodpo.errors import UserError
from jaxmodpo.files import read_json, read_table
from jaxmodpo.fingerprints import digest
from jaxmodpo.parsing import parse_json, serialized_messages
from jaxmodpo.ranges import Count
from jaxmodpo.records import Candidate, Pair, Ranking, identifier, pair_from_mapping, plain_text, read_rankings

logger = logging.getLogger(__name__)

_TURN = re.compile(r"\n\n(?=(?:Human|Assistant):)")


PairsPerQuestion = Literal["best-worst", "all"] | Count


@dataclass
class LeftOut:
    """How many pairs were not made of rankings, since they would prefer nothing.

    Attributes:
        tied: the two responses share a rank.
        identical: they have the same text.
    """

    tied: int = 0
    identical: int = 0

    def add(self, other: LeftOut) -> None:
        self.tied, self.identical = self.tied + other.tied, self.identical + other.identical

    def as_dict(self) -> dict[str, int]:
        return {"tied_pairs_left_out": self.tied, "identical_pairs_left_out": self.identical}


def load_pairs(
    path: Path, per_question: PairsPerQuestion = "best-worst", left_out: LeftOut | None = None
) -> list[Pair]:
    """Read preference pairs, or make them of the rankings in a ``{criterion}_rankings.json``.

    The file's kind follows from its name: ``.json`` (a list), ``.jsonl`` or ``.jsonl.gz``, ``.parquet``, ``.csv``,
    or a folder written by ``datasets``. A row is in one of these layouts:

    - the authors': ``question_id, question_text, chosen, rejected``, the last two with ``response_id``
      and ``response_text``;
    - ``prompt, chosen, rejected`` as texts, or as lists of ``{role, content}`` messages; chosen and rejected may be
      whole conversations that repeat the prompt, as UltraFeedback's are;
    - ``chosen, rejected`` alone, as message lists that begin alike, or as HH-RLHF's
      ``"\\n\\nHuman: … \\n\\nAssistant: …"`` transcripts: what they share is the prompt.

    A prompt of one message is its text; a longer one becomes lines that begin with ``User:`` or ``Assistant:``,
    and so does a response of several messages, where two conversations part before their last message.
    ``question_id``, ``chosen_response_id`` and ``rejected_response_id`` beside these layouts are taken;
    otherwise ids are digests of the texts. Rows whose two responses are equal carry no preference: they are
    an error, except in HH-RLHF's transcripts, where a user cannot mend the published file: those are left out
    and counted in the log. An empty reply in a transcript stays, since it was preferred or not like any other.

    Args:
        path: the file or folder.
        per_question: how many pairs are made of a ranking, see :func:`pairs_of`. A file of pairs is taken as it is, so
            that a number makes no sense there.
        left_out: counts what is left out of rankings.

    Raises:
        UserError: unreadable, no rows, or a row that lacks a field or prefers nothing; it names file and row. Or
            ``per_question`` asks a number of a file of pairs.
    """
    if holds_rankings(path):
        return pairs_of(load_rankings(path), per_question, left_out)
    if isinstance(per_question, int):
        raise UserError(
            f"--pairs-per-question {per_question} needs rankings, as in safety_rankings.json; {path} holds pairs"
        )
    rows = [_pair(row, f"{path}, row {number}") for number, row in enumerate(_rows(path), 1)]
    pairs = [pair for pair in rows if pair is not None]
    if len(pairs) < len(rows):
        logger.warning("%s: %d rows with equal responses left out", path, len(rows) - len(pairs))
    if not pairs:
        raise UserError(f"{path} holds no preference pairs")
    return pairs


def count_rows(path: Path) -> int:
    """Return how many rows a file of pairs or rankings has, in any layout that :func:`load_pairs` reads.

    Raises:
        UserError: it cannot be read.
    """
    return sum(1 for _ in _rows(path))


def holds_rankings(path: Path) -> bool:
    """Tell a file of rankings from one of pairs."""
    if path.suffix != ".json" or not path.is_file():
        return False
    first = next(_json_list(path), None)
    return isinstance(first, Mapping) and "ranking" in first


def load_rankings(path: Path) -> list[Ranking]:
    """Read a ``{criterion}_rankings.json``.

    Raises:
        UserError: it is none, or a ranking has fewer than two responses.
    """
    if not holds_rankings(path):
        raise UserError(f"{path} holds no rankings; 'jaxmodpo preferences' writes them as CRITERION_rankings.json")
    rankings = read_rankings(path)
    short = next((r.question_id for r in rankings if len(r.candidates) < 2), None)
    if short is not None:
        raise UserError(f"{path}: the ranking of question {short} has fewer than two responses")
    return rankings


def pairs_of(
    rankings: Sequence[Ranking], per_question: PairsPerQuestion, left_out: LeftOut | None = None
) -> list[Pair]:
    """Make preference pairs of rankings.

    Responses that share a rank are no preference, so that no pair is made of them; nor is one of two responses of
    the same text. Both are counted, in the log too.

    Args:
        rankings: best first.
        per_question: ``best-worst`` makes one pair a ranking, of its ends; ``all`` one of every two responses; a
            number that many, the widest gaps between ranks first and among equals the better response, so that 1 is
            best-worst and each number's pairs contain those of the smaller ones. Where several share the first or
            the last rank, the first or last in the list stands for them.
        left_out: counts what is left out.

    Returns:
        Pairs in the rankings' order.

    Raises:
        UserError: a number below 1, or no pair at all.
    """
    if isinstance(per_question, int) and per_question < 1:
        raise UserError(f"--pairs-per-question must be best-worst, all or at least 1, not {per_question}")
    found = LeftOut()
    pairs = [pair for ranking in rankings for pair in _pairs_of_one(ranking, per_question, found)]
    if left_out is not None:
        left_out.add(found)
    if not pairs:
        raise UserError("the rankings give no pair: all their responses are tied or have the same text")
    if found.tied or found.identical:
        logger.info(
            "%d pairs of %d rankings; left out: %d of tied responses, %d of responses with the same text",
            len(pairs),
            len(rankings),
            found.tied,
            found.identical,
        )
    return pairs


def _text_of(_: Ranking, candidate: Candidate) -> Hashable:
    return candidate.response_text


def without_repeats(
    rankings: Sequence[Ranking], left_out: LeftOut, key: Callable[[Ranking, Candidate], Hashable] = _text_of
) -> list[Ranking]:
    """Return rankings in which no text stands twice, since none is better than itself; its best place is kept.

    Args:
        rankings: best first; those that prefer nothing any more are left out.
        left_out: counts the pairs of the same text.
        key: what makes two replies of a ranking the same; their texts, unless it is given.
    """
    kept = []
    for ranking in rankings:
        texts = [key(ranking, candidate) for candidate in ranking.candidates]
        repeated = sum(math.comb(count, 2) for count in collections.Counter(texts).values())
        if not repeated:
            kept.append(ranking)
            continue
        left_out.identical += repeated
        first: dict[Hashable, tuple[Candidate, int]] = {}
        for text, candidate, rank in zip(texts, ranking.candidates, ranking.ranks, strict=True):
            first.setdefault(text, (candidate, rank))
        places = list(first.values())
        ranks = [rank for _, rank in places]
        shorter = replace(
            ranking, candidates=tuple(c for c, _ in places), ranks=tuple(ranks.index(rank) + 1 for rank in ranks)
        )
        if not shorter.all_tied:
            kept.append(shorter)
    return kept


def tied_pairs(rankings: Sequence[Ranking]) -> int:
    """Return of how many two responses the rankings prefer neither."""
    return sum(math.comb(count, 2) for r in rankings for count in collections.Counter(r.ranks).values())


def _pairs_of_one(ranking: Ranking, per_question: PairsPerQuestion, left_out: LeftOut) -> Iterator[Pair]:
    ranks, replies = ranking.ranks, ranking.candidates
    by_gap = sorted(
        itertools.combinations(range(len(ranks)), 2),
        key=lambda pair: (ranks[pair[0]] - ranks[pair[1]], pair[0], -pair[1]),
    )
    wanted = {"best-worst": 1, "all": len(by_gap)}.get(str(per_question), per_question)
    for better, worse in by_gap[: int(wanted)]:
        if ranks[better] == ranks[worse]:
            left_out.tied += 1
        elif replies[better].response_text == replies[worse].response_text:
            left_out.identical += 1
        else:
            yield Pair(ranking.question_id, ranking.question_text, replies[better], replies[worse])


def load_column(path: Path, name: str, pairs: Sequence[Pair]) -> np.ndarray:
    """Read a column of numbers that stands beside pairs, ``[pairs]`` float64.

    Args:
        path: the file that the pairs were read from.
        name: the column's.
        pairs: what :func:`load_pairs` gave; each number belongs to the pair of its row.

    Raises:
        UserError: the file holds rankings, a row lacks the column or holds no finite number there, or the file holds
            other pairs than these.
    """
    if holds_rankings(path):
        raise UserError(f"{path} holds rankings, which have no column '{name}'; give pairs")
    values: list[float] = []
    for number, row in enumerate(_rows(path), 1):
        where = f"{path}, row {number}"
        pair = _pair(row, where)
        if pair is None:
            continue
        if len(values) == len(pairs) or pair != pairs[len(values)]:
            raise UserError(f"{where}: another pair than when the pairs were read; let nobody write to the file")
        try:
            value = float(row[name])
        except (KeyError, TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            value_in_words = f"{row.get(name, 'it is missing')}"[:60]
            raise UserError(f"{where}: the column '{name}' holds no finite number: {value_in_words}")
        values.append(value)
    if len(values) < len(pairs):
        raise UserError(f"{path} holds {len(values)} pairs and not {len(pairs)} as when they were read")
    return np.array(values)


def held_out(questions: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Choose which examples are held out: all those of a share of the questions.

    Args:
        questions: each example's question id.
        fraction: of the distinct questions.
        seed: of the choice.

    Returns:
        ``[examples]`` bool.
    """
    distinct = sorted(set(questions))
    count = round(fraction * len(distinct))
    chosen = set(np.random.default_rng(seed).permutation(distinct)[:count].tolist())
    return np.array([question in chosen for question in questions], bool)


def _rows(path: Path) -> Iterator[Any]:
    name = path.name
    if path.is_dir():
        yield from _datasets_folder(path)
    elif not path.is_file():
        raise UserError(f"no such file or folder: {path}")
    elif name.endswith(".json"):
        yield from _json_list(path)
    elif name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path)
    elif name.endswith(".csv"):
        yield from read_table(path, [])
    elif name.endswith(".parquet"):
        yield from _parquet(path)
    else:
        raise UserError(f"{path}: pairs are read from .json, .jsonl, .jsonl.gz, .parquet, .csv or a datasets folder")


def _datasets_folder(path: Path) -> Iterator[Any]:
    """Yield the rows of a folder that datasets wrote."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path} is not a folder that datasets' save_to_disk wrote") from error
    except Exception as error:  # whatever the library comes to in a file of another shape
        raise _damaged(path, error) from error
    if isinstance(loaded, datasets.DatasetDict):
        raise UserError(
            f"{path} holds the splits {', '.join(map(str, loaded))}; give the folder of one, as in {path}/train"
        )
    try:
        yield from loaded
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    words = " ".join(str(error).split())[:200]
    return UserError(f"{path} is damaged and cannot be read ({type(error).__name__}: {words}); write it again")


def _json_list(path: Path) -> Iterator[Any]:
    """Yield the rows of a .json file: of its list, or of its lines where each is a row of its own."""
    with path.open("rb") as file:
        first = file.readline().removeprefix(b"\xef\xbb\xbf").strip()
        second = next((line.strip() for line in file if line.strip()), b"")
    if first.startswith(b"{") and first.endswith(b"}") and second.startswith(b"{"):
        yield from _json_lines(path)
        return
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path} must hold a list of pairs")
    yield from rows


def _json_lines(path: Path) -> Iterator[Any]:
    """Yield the rows of a file of JSON lines, which may begin with a byte-order mark and hold blank lines."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        # Lines end at line feeds alone: a text may hold what Python takes for other line ends.
        with opener(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip():
                    continue
                try:
                    yield parse_json(line)
                except ValueError as error:
                    raise UserError(f"{path}, row {number}: not JSON: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _parquet(path: Path) -> Iterator[Any]:
    """Yield the rows of a Parquet file; without pandas, which makes 12 of a column with gaps 12.0."""
    import pyarrow
    from pyarrow import parquet

    try:
        names = parquet.read_schema(path).names
        if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
            raise UserError(f"{path}: the column '{twice[0]}' stands there twice; remove or rename one")
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    for batch in table.to_batches():
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is damaged: a text in it is not UTF-8 ({error})") from None
        except (ValueError, OverflowError) as error:
            # Two fields of one name inside a column, or a date beyond Python's.
            words = " ".join(str(error).split())
            raise UserError(f"{path} holds what Python cannot: {words}; mend or remove that column") from None
        yield from rows


def _pair(row: Any, where: str) -> Pair | None:
    """Read one row; None for a transcript without a preference."""
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: not a mapping")
    if "question_text" in row and "prompt" not in row:
        pair = pair_from_mapping(row, where)
        _refuse_equal(pair.chosen.response_text, pair.rejected.response_text, where)
        return pair
    missing = [name for name in ("chosen", "rejected") if not _given(row.get(name))]
    if missing:
        raise UserError(f"{where}: the field {' and '.join(missing)} is missing or empty")
    chosen, rejected = (_messages_or_text(row[name], f"{where}, {name}") for name in ("chosen", "rejected"))
    transcripts = all(isinstance(text, str) and text.lstrip().startswith("Human:") for text in (chosen, rejected))
    if transcripts:
        chosen, rejected = _transcript(chosen), _transcript(rejected)
    if _given(row.get("prompt")):
        asked, better, worse = _beside_prompt(
            _messages_or_text(row["prompt"], f"{where}, prompt"), chosen, rejected, where
        )
    elif isinstance(chosen, list) and isinstance(rejected, list):
        asked, better, worse = _parted(chosen, rejected, where)
    else:
        raise UserError(f"{where}: the field prompt is missing")
    several = _is_several(asked) or len(better) > 1 or len(worse) > 1
    prompt, better, worse = (_text(part, where) for part in (asked, better, worse))
    if transcripts and better == worse:
        return None
    _refuse_equal(better, worse, where)
    question = _id(row, "question_id", where) or digest(prompt)[:16]
    return Pair(
        question,
        prompt,
        Candidate(_id(row, "chosen_response_id", where) or f"{question}_{digest(better)[:12]}", better),
        Candidate(_id(row, "rejected_response_id", where) or f"{question}_{digest(worse)[:12]}", worse),
        conversation=several,
    )


def _given(value: Any) -> bool:
    """Tell whether a field holds something: a missing cell is None, NaN or empty."""
    return value is not None and value == value if not hasattr(value, "__len__") else len(value) > 0


def _id(row: Mapping[str, Any], field: str, where: str) -> str:
    """Return the id that a row gives, or an empty text."""
    return identifier(row[field], f"{where}, {field}") if _given(row.get(field)) else ""


def _messages_or_text(value: Any, where: str) -> Any:
    """Return a list of messages, or a text; messages that a table keeps as JSON text become a list again."""
    if not isinstance(value, str):
        return value
    messages = serialized_messages(value)
    return plain_text(value, where) if messages is None else messages


def _beside_prompt(
    prompt: Any, chosen: Any, rejected: Any, where: str
) -> tuple[Any, list[dict[str, str]], list[dict[str, str]]]:
    """Return the prompt, a text or messages, and the answers of a row with a prompt, whose conversations may repeat it.

    UltraFeedback's rows hold the first message as ``prompt``, and the whole conversation, that message included, in
    ``chosen`` and ``rejected``. What they share is then the prompt, as TRL takes it; a row whose ``prompt`` is none of
    what they share contradicts itself.
    """
    if not (_is_conversation(chosen) and _is_conversation(rejected)):
        asked = prompt if isinstance(prompt, str) else _messages(prompt, where)
        return asked, _answer(chosen, where), _answer(rejected, where)
    shared, better, worse = _parted(chosen, rejected, where)
    if isinstance(prompt, str):
        wanted = [turn["content"] for turn in _transcript(prompt)] if prompt.lstrip().startswith("Human:") else [prompt]
    else:
        wanted = [message["content"] for message in _messages(prompt, where)]
    contents = [message["content"].strip() for message in shared]
    if not all(text.strip() in contents for text in wanted if text.strip()):
        raise UserError(f"{where}: chosen and rejected are conversations that do not begin with the prompt")
    return shared, better, worse


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1


def _refuse_equal(chosen: str, rejected: str, where: str) -> None:
    if chosen == rejected:
        raise UserError(f"{where}: chosen and rejected are the same text; leave the row out")


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not all(_is_message(m) for m in value):
        raise UserError(f"{where}: it must be a text, or a list of messages with role and content, both texts")
    return [{"role": m["role"], "content": m["content"]} for m in value]


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(name), str) for name in ("role", "content"))


def _text(prompt: Any, where: str) -> str:
    if isinstance(prompt, str):
        return prompt
    messages = _messages(prompt, where)
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages)


def _answer(value: Any, where: str) -> list[dict[str, str]]:
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    messages = _messages(value, where)
    if len(messages) != 1:
        raise UserError(f"{where}: beside a prompt, chosen and rejected must be one message each")
    return messages


def _is_several(messages: Any) -> bool:
    """Return whether a prompt is other than a text or one message of the user's."""
    if not isinstance(messages, list):
        return False
    return len(messages) != 1 or messages[0]["role"] != "user"


def _parted(
    chosen: list[Any], rejected: list[Any], where: str
) -> tuple[list[dict[str, str]], list[dict[str, str]], list[dict[str, str]]]:
    """Part two conversations into the messages they share and those that follow in each, at least the last."""
    first, second = _messages(chosen, where), _messages(rejected, where)
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    if shared == 0:
        raise UserError(f"{where}: chosen and rejected must begin with the same message")
    return first[:shared], first[shared:], second[shared:]


def _transcript(text: str) -> list[dict[str, str]]:
    messages = []
    for turn in _TURN.split("\n\n" + text.lstrip())[1:]:
        speaker, _, content = turn.partition(":")
        messages.append({"role": "user" if speaker == "Human" else "assistant", "content": content.strip()})
    return messages
