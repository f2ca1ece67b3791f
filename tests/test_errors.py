"""Sentences on wrong names: the nearest known one, or some of those that there are."""

from __future__ import annotations

from jaxmodpo.errors import nearest


def test_a_name_that_resembles_none_is_answered_with_a_list_of_at_most_twenty():
    assert nearest("p38", ["b", "a"]) == "; known: a, b"
    probes = [f"suicide-explicit-{number:03}" for number in range(180)]
    answer = nearest("p38", probes)
    assert answer.startswith("; known: suicide-explicit-000, ")
    assert answer.endswith("suicide-explicit-019 and 160 others")


def test_a_name_that_resembles_one_is_answered_with_it():
    assert nearest("griceian", ["therapeutic", "gricean"]) == "; did you mean 'gricean'?"
