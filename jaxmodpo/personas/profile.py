"""A participant as a profile: the text that a judge plays, and how good a profile it makes.

The text has the paper's sections (its Figure 7). Ratings are written so that a judge, or a program,
can read them back: ``- Empathy and warmth: 4.0/5 importance``.
"""

from __future__ import annotations

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
# Weights of the parts of a profile's quality.
QUALITY_WEIGHTS = {"completeness": 0.4, "consistency": 0.3, "specificity": 0.2, "validity": 0.1}


def profile_text(participant: Participant) -> str:
    """Return the profile; what a participant did not answer is left out."""
    texts, lists, ratings = participant.texts, participant.lists, participant.ratings
    sections = [
        (
            "DEMOGRAPHICS:",
            [
                f"- {name.capitalize()}: {texts[name]}"
                for name in ("age", "gender", "ethnicity")
                if texts[name]
            ],
        ),
        (
            "MENTAL HEALTH BACKGROUND:",
            [
                *([f"- Diagnoses: {', '.join(lists['diagnoses'])}"] if lists["diagnoses"] else []),
                *([f"- Severity level: {texts['severity']}"] if texts["severity"] else []),
                *([f"- Current treatment: {texts['treatment']}"] if texts["treatment"] else []),
            ],
        ),
        (
            "TECHNOLOGY EXPERIENCE:",
            _list("You have previous experience with AI tools for:", lists["ai_experience"]),
        ),
        ("YOUR ATTITUDES TOWARD AI IN MENTAL HEALTH:", _attitudes(ratings)),
        (
            "THERAPY PREFERENCES (importance ratings out of 5):",
            [
                f"- {IMPORTANCE_LABELS[name]}: {ratings[name]:.1f}/5 importance"
                for name in IMPORTANCES
                if ratings[name] is not None
            ],
        ),
        (
            "AREAS WHERE YOU THINK AI COULD BE HELPFUL:",
            [f"- {area}" for area in lists["helpful_areas"]],
        ),
        (
            "YOUR VIEWS ON APPROPRIATE USES OF AI IN THERAPY:",
            _list("You think AI is appropriate for:", lists["appropriate_uses"]),
        ),
    ]
    parts = ["You are roleplaying as a patient with the following characteristics:"]
    parts += ["\n".join([title, *lines]) for title, lines in sections if lines]
    return "\n\n".join(parts)


def _list(opening: str, items: tuple[str, ...]) -> list[str]:
    return [opening, *(f"- {item}" for item in items)] if items else []


def _attitudes(ratings: dict[str, float | None]) -> list[str]:
    lines = []
    for name, (label, degrees, statement) in _ATTITUDE_LABELS.items():
        value = ratings[name]
        if value is not None:
            lines.append(f"- {label}: {degrees[int(value) - 1]} {statement}")
    trust = ratings["attitude_trust"]
    if trust is not None:
        lines.append(
            f"- Trust Level: You have {_TRUST[int(trust) - 1]} trust in LLMs "
            "for safe and accurate mental health support"
        )
    return lines


def quality(participant: Participant) -> dict[str, float]:
    """Rate a profile, each part in [0, 1]. What the survey does not ask counts neither for nor
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
    texts, lists, ratings = participant.texts, participant.lists, participant.ratings
    asked = [name for name in COLUMNS if name != IDENTIFIER and name not in participant.unasked]
    trusting = (ratings["attitude_trust"] or 3) >= 4
    doubting = (ratings["attitude_error_concerns"] or 3) >= 5 and (
        ratings["attitude_ai_empathy"] or 3
    ) <= 1
    treated = texts["treatment"].lower().startswith(("therapy", "medication"))
    undiagnosed = "diagnoses" in asked and not lists["diagnoses"]
    contradictions = int(trusting and doubting) + int(treated and undiagnosed)
    importances = [ratings[n] for n in IMPORTANCES if ratings[n] is not None]
    listing = [n for n in ("ai_experience", "helpful_areas", "appropriate_uses") if n in asked]
    entries = sum(len(lists[n]) for n in listing)
    demographics = all(texts[n] for n in ("age", "gender", "ethnicity"))
    unrepeated = all(len(set(items)) == len(items) for items in lists.values())
    parts = {
        "completeness": sum(_answered(participant, name) for name in asked) / len(asked),
        "consistency": max(0.0, 1 - 0.5 * contradictions),
        "specificity": 0.5 * (len(set(importances)) > 1) + 0.5 * (entries >= 2 or not listing),
        "validity": 0.5 * demographics + 0.5 * unrepeated,
    }
    total = sum(QUALITY_WEIGHTS[name] * value for name, value in parts.items())
    return {**{name: round(value, 6) for name, value in parts.items()}, "quality": round(total, 6)}


def _answered(participant: Participant, name: str) -> bool:
    if name in participant.ratings:
        return participant.ratings[name] is not None
    return bool(participant.texts[name] if name in participant.texts else participant.lists[name])
