"""The objectives' weights: read from ``--weights``, checked to lie on the simplex.

They are numbers in the objectives' order, or names with numbers::

    named_weights(("safety=0.3", "empathy=0.7"), ["empathy", "safety"])   # (0.7, 0.3)
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxmodpo.config import named_values
from jaxmodpo.errors import UserError


def named_weights(
    weights: Sequence[float | str], names: Sequence[str], *, primary: bool = False
) -> tuple[float, ...]:
    """Return weights in the order of their objectives; all of them numbers, or all of them
    ``NAME=NUMBER``.

    Args:
        weights: of a command's settings.
        names: of the objectives.
        primary: the first objective has no name of its own: it is the one that ``names[1:]`` does
            not name, and its weight must be positive.

    Raises:
        UserError: another count than ``names``, a name too many or too few, a negative weight, a
            sum that is not 1.
    """
    if any(isinstance(weight, str) for weight in weights):
        weights_by_name = named_values([str(weight) for weight in weights], "--weights")
        if primary:
            # Nothing else names the primary objective, so that it is called as the user calls it.
            unknown_names = [name for name in weights_by_name if name not in names[1:]]
            first_name = unknown_names[0] if len(unknown_names) == 1 else names[0]
            names = [first_name, *names[1:]]
        if set(weights_by_name) != set(names):
            raise UserError(
                f"--weights names {', '.join(weights_by_name)}, but the objectives are {', '.join(names)}"
            )
        try:
            values = tuple(float(weights_by_name[name]) for name in names)
        except ValueError as error:
            raise UserError(
                f"--weights must be numbers; got {' '.join(map(str, weights))}"
            ) from error
    else:
        values = tuple(float(weight) for weight in weights)
    check_weights(values, names)
    if primary and values[0] <= 0:
        raise UserError("the primary objective's weight, the first of --weights, must be positive")
    return values


def check_weights(weights: Sequence[float], names: Sequence[str]) -> None:
    """Refuse weights that do not fit their objectives.

    Raises:
        UserError: another count than ``names``, a negative one, or a sum that is not 1.
    """
    if len(weights) != len(names):
        raise UserError(
            f"--weights needs {len(names)} numbers, for {', '.join(names)}; got {len(weights)}"
        )
    # Written so that NaN, which is neither below 0 nor at least 0, fails too.
    none_is_negative = all(weight >= 0 for weight in weights)
    sum_is_one = abs(sum(weights) - 1) <= 1e-6
    if not (none_is_negative and sum_is_one):
        raise UserError(
            f"--weights must be at least 0 and sum to 1; got {' '.join(map(str, weights))}"
        )
