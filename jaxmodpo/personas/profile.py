"""A participant as a profile: the text that a judge plays, and how good a profile it makes.

The text has the paper's sections (its Figure 7). Ratings are written so that a judge, or a program,
can read them back: ``- Empathy and warmth: 4.0/5 importance``.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxmodpo.personas.participant import COLUMNS, IDENTIFIER, IMPORTANCES, Participant

IMPORTANCE_LABELS = {
    "importance_empathy": "Empathy and warmth",
    "importance_active_listening": "Active listening",
    "importance_trust_rapport": "Trust and rapport building",
    "importance_self_motivated_change": "Self-motivated change support",
    "importance_patient_autonomy": "Patient autonomy",
}
_AGREEMENT = (
    "You strongly doubt that",
    "You doubt that",
    "You are unsure whether",
    "You think that",
    "You strongly believe that",
)
_CONCERN = (
    "You are not at all concerned about",
    "You are little concerned about",
    "You are somewhat concerned about",
    "You are concerned about",
    "You are very concerned about",
)
_ATTITUDE_LABELS = {
    "attitude_accessibility": (
        "Accessibility",
        _AGREEMENT,
        "LLMs can help by offering accessible mental health support",
    ),
    "attitude_ai_empathy": (
        "AI Empathy",
        _AGREEMENT,
        "LLMs can provide empathetic responses similar to human therapists",
    ),
    "attitude_error_concerns": (
        "Error Concerns",
        _CONCERN,
        "LLMs making factual errors in mental health conversations",
    ),
    "attitude_complement_only": (
        "Replacement vs Complement",
        _AGREEMENT,
        "LLMs should only complement, not replace, human therapists",
    ),
}
_TRUST = ("very low", "low", "moderate", "high", "very high")
# Weights of the four components of a profile's quality; they add up to 1.
QUALITY_WEIGHTS = {"completeness": 0.4, "consistency": 0.3, "specificity": 0.2, "validity": 0.1}


def profile_text(participant: Participant) -> str:
    """Return the profile; what a participant did not answer is left out."""
    sections = {
        "DEMOGRAPHICS:": _demographics(participant.texts),
        "MENTAL HEALTH BACKGROUND:": _background(participant),
        "TECHNOLOGY EXPERIENCE:": _list(
            "You have previous experience with AI tools for:", participant.lists["ai_experience"]
        ),
        "YOUR ATTITUDES TOWARD AI IN MENTAL HEALTH:": _attitudes(participant.ratings),
        "THERAPY PREFERENCES (importance ratings out of 5):": _importances(participant.ratings),
        "AREAS WHERE YOU THINK AI COULD BE HELPFUL:": _items(participant.lists["helpful_areas"]),
        "YOUR VIEWS ON APPROPRIATE USES OF AI IN THERAPY:": _list(
            "You think AI is appropriate for:", participant.lists["appropriate_uses"]
        ),
    }
    paragraphs = ["You are roleplaying as a patient with the following characteristics:"]
    for title, lines in sections.items():
        # A title without lines would make the judge guess what belongs there.
        if lines:
            paragraphs.append("\n".join([title, *lines]))
    return "\n\n".join(paragraphs)


def _demographics(texts: dict[str, str]) -> list[str]:
    names = ("age", "gender", "ethnicity")
    return [f"- {name.capitalize()}: {texts[name]}" for name in names if texts[name]]


def _background(participant: Participant) -> list[str]:
    answers = {
        "Diagnoses": ", ".join(participant.lists["diagnoses"]),
        "Severity level": participant.texts["severity"],
        "Current treatment": participant.texts["treatment"],
    }
    return [f"- {label}: {answer}" for label, answer in answers.items() if answer]


def _list(opening: str, entries: tuple[str, ...]) -> list[str]:
    if not entries:
        return []
    return [opening, *_items(entries)]


def _items(entries: tuple[str, ...]) -> list[str]:
    return [f"- {entry}" for entry in entries]


def _importances(ratings: dict[str, float | None]) -> list[str]:
    lines: list[str] = []
    for name in IMPORTANCES:
        rating = ratings[name]
        if rating is not None:
            lines.append(f"- {IMPORTANCE_LABELS[name]}: {rating:.1f}/5 importance")
    return lines


def _attitudes(ratings: dict[str, float | None]) -> list[str]:
    lines = []
    for name, (label, degrees, statement) in _ATTITUDE_LABELS.items():
        value = ratings[name]
        if value is not None:
            # Answers count from 1.
            degree = degrees[int(value) - 1]
            lines.append(f"- {label}: {degree} {statement}")
    trust = ratings["attitude_trust"]
    if trust is not None:
        lines.append(
            f"- Trust Level: You have {_TRUST[int(trust) - 1]} trust in LLMs "
            "for safe and accurate mental health support"
        )
    return lines


def quality(participant: Participant) -> dict[str, float]:
    """Rate a profile, each component in [0, 1]. What the survey does not ask counts neither for nor
    against anybody.

    - completeness: share of the questions that were answered;
    - consistency: 1, less a half for each contradiction: high trust in LLMs beside great concern
      about their errors and doubt of their empathy; medication or therapy as treatment without any
      diagnosis;
    - specificity: how far the importance ratings and the lists tell this participant from an
      average one: half for ratings that are not all equal, half for at least two entries in the
      lists together;
    - validity: 1 where demographics are all there and no list repeats an entry, a half where one of
      the two fails.

    ``quality`` is their sum with :data:`QUALITY_WEIGHTS`.
    """
    not_rated = participant.unasked | {IDENTIFIER}
    survey_fields = [name for name in COLUMNS if name not in not_rated]
    answered = [name for name in survey_fields if _answered(participant, name)]
    components = {
        "completeness": len(answered) / len(survey_fields),
        "consistency": max(0.0, 1 - 0.5 * _contradictions(participant)),
        "specificity": _specificity(participant, survey_fields),
        "validity": _validity(participant),
    }
    total = sum(QUALITY_WEIGHTS[name] * value for name, value in components.items())
    # Rounded, so that a threshold such as 0.9 means the same on every machine.
    rated = {name: round(value, 6) for name, value in components.items()}
    rated["quality"] = round(total, 6)
    return rated


def _contradictions(participant: Participant) -> int:
    """Count the contradictions that :func:`quality` names.

    An unanswered rating stands in the middle of its scale, where it contradicts nothing.
    """
    trust = participant.ratings["attitude_trust"] or 3
    error_concerns = participant.ratings["attitude_error_concerns"] or 3
    empathy = participant.ratings["attitude_ai_empathy"] or 3
    trusts_and_doubts = trust >= 4 and error_concerns >= 5 and empathy <= 1
    treated = participant.texts["treatment"].lower().startswith(("therapy", "medication"))
    # A survey that does not ask for diagnoses says nothing about having none.
    asked_for_diagnoses = "diagnoses" not in participant.unasked
    treated_for_nothing = treated and asked_for_diagnoses and not participant.lists["diagnoses"]
    return int(trusts_and_doubts) + int(treated_for_nothing)


def _specificity(participant: Participant, survey_fields: Sequence[str]) -> float:
    """Return a half for importance ratings that differ, and a half for at least two list entries;
    a survey without lists gives its participants the second half.
    """
    ratings = [participant.ratings[name] for name in IMPORTANCES]
    distinct_ratings = {rating for rating in ratings if rating is not None}
    has_lists = False
    entries = 0
    for name in ("ai_experience", "helpful_areas", "appropriate_uses"):
        if name in survey_fields:
            has_lists = True
            entries += len(participant.lists[name])
    tells_ratings_apart = len(distinct_ratings) > 1
    has_entries = entries >= 2 or not has_lists
    return 0.5 * tells_ratings_apart + 0.5 * has_entries


def _validity(participant: Participant) -> float:
    """Return a half for complete demographics, and a half for lists that repeat nothing."""
    complete = all(participant.texts[name] for name in ("age", "gender", "ethnicity"))
    lists = participant.lists.values()
    unrepeated = all(len(set(entries)) == len(entries) for entries in lists)
    return 0.5 * complete + 0.5 * unrepeated


def _answered(participant: Participant, name: str) -> bool:
    if name in participant.ratings:
        return participant.ratings[name] is not None
    if name in participant.texts:
        return bool(participant.texts[name])
    return bool(participant.lists[name])
