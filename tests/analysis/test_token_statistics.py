"""What tokens tell of a latent's fires: latents that are functions of tokens, and numbers worked by hand."""

import math

import numpy as np
import pytest

from unweave.analysis.fires import Fires, IndexedText
from unweave.analysis.token_statistics import PATTERNS, explained, rules, second_half, variables

CONTEXT = 20


@pytest.fixture(scope="module")
def text() -> IndexedText:
    random = np.random.default_rng(7)
    tokens = random.integers(1, 30, size=(400, CONTEXT))
    tokens[:, 0] = 0
    is_row = tokens > 0
    return IndexedText(tokens, np.repeat(np.arange(100), 4)[:, None].repeat(CONTEXT, 1), is_row)


def _fires(text: IndexedText, *active: np.ndarray) -> Fires:
    places = [np.flatnonzero(grid & text.is_row) for grid in active]
    offsets = np.cumsum([0] + [len(p) for p in places])
    found = np.concatenate(places)
    return Fires(0, offsets, found, np.ones(len(found), dtype=np.float32))


def _previous(tokens: np.ndarray) -> np.ndarray:
    return np.concatenate([np.full((len(tokens), 1), -1), tokens[:, :-1]], axis=1)


def test_a_latent_that_follows_from_a_variable_is_told_by_it_and_named_by_its_rule(text: IndexedText) -> None:
    tokens, before = text.token_ids, _previous(text.token_ids)
    random = np.random.default_rng(8).random(tokens.shape) < 0.02
    fires = _fires(text, np.isin(tokens, (5, 9)), before == 7, (before == 3) & (tokens == 4), random)
    half = second_half(text)
    known = {variable.name: variable for variable in variables(text)}
    told = {name: explained(fires, variable, half) for name, variable in known.items()}
    assert told["token"].share[0] > 0.95 and told["previous"].share[0] < 0.01
    assert told["previous"].share[1] > 0.95 and told["token"].share[1] < 0.01
    # one of 29 tokens says that it may fire, one bigram of 841 that it does: the token saves 44 % at most
    assert told["bigram"].share[2] > 0.6 and 0.25 < told["token"].share[2] < 0.44
    assert all(told[name].share[3] < 0.02 for name in ("token", "previous", "next", "position"))
    found = rules({n: told[n] for n in PATTERNS}, {n: known[n].meaning for n in PATTERNS}, 0.5)
    assert found[0] is not None and found[0].variable == "token" and sorted(found[0].keys) == [(5,), (9,)]
    assert (found[0].f1, found[0].precision, found[0].recall) == (1.0, 1.0, 1.0)
    assert found[1] is not None and (found[1].variable, found[1].keys) == ("previous", [(7,)])
    assert found[2] is not None and (found[2].variable, found[2].keys) == ("bigram", [(3, 4)])
    assert found[3] is None


def test_the_share_is_the_saving_in_bits_on_the_other_half_of_the_documents() -> None:
    """Token 1: fires 2 of 4 times in the first document, 3 of 4 in the second; token 2: 0 of 4, 1 of 4."""
    tokens = np.array([[1, 1, 1, 1, 2, 2, 2, 2]] * 2)
    text = IndexedText(tokens, np.array([[0] * 8, [1] * 8]), np.ones((2, 8), dtype=bool))
    active = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 0, 0, 0]], dtype=bool)
    variable = next(iter(variables(text)))
    assert variable.name == "token" and variable.rows.tolist() == [[4, 4], [4, 4]]
    found = explained(_fires(text, active), variable, second_half(text))
    rate = 2 / 8
    q1, q2 = (2 + rate) / 5, (0 + rate) / 5
    plain = -(4 * math.log(rate) + 4 * math.log(1 - rate))
    told = -(3 * math.log(q1) + 1 * math.log(1 - q1) + 1 * math.log(q2) + 3 * math.log(1 - q2))
    assert found.share[0] == pytest.approx(1 - told / plain)
    assert found.entropy[0] == pytest.approx(-(5 / 6 * math.log2(5 / 6) + 1 / 6 * math.log2(1 / 6)))
    assert found.top[0, :2].tolist() == [0, 1] and found.top_counts[0, :2].tolist() == [5, 1]
    # the rule is token 1: 3 of its 4 rows fire, which are 3 of 4 fires
    assert found.rule[0].tolist()[:2] == [0, -1] and found.marks[0].tolist() == [0.75, 0.75, 0.75]


def test_keys_without_a_fire_count_for_what_they_cost() -> None:
    """The second half has ten rows of a token that never fired: each costs the smoothed rate."""
    tokens = np.array([[1, 1, 2, 2, 2, 2, 2, 2, 2, 2]] * 2)
    text = IndexedText(tokens, np.array([[0] * 10, [1] * 10]), np.ones((2, 10), dtype=bool))
    active = np.array([[1] + [0] * 9, [1] + [0] * 9], dtype=bool)
    found = explained(_fires(text, active), next(iter(variables(text))), second_half(text))
    rate = 1 / 10
    q1, q2 = (1 + rate) / 3, rate / 9
    told = -(math.log(q1) + math.log(1 - q1)) + 8 * q2  # log(1 - q) is taken as -q where nothing fired
    assert found.share[0] == pytest.approx(1 - told / -(math.log(rate) + 9 * math.log(1 - rate)))


def test_a_text_of_one_document_is_split_by_sequences() -> None:
    text = IndexedText(np.ones((4, 3), dtype=np.int64), np.zeros((4, 3), dtype=np.int64), np.ones((4, 3), dtype=bool))
    assert second_half(text).tolist() == [False] * 3 + [True] * 3 + [False] * 3 + [True] * 3


def test_a_latent_that_never_fires_is_told_by_nothing(text: IndexedText) -> None:
    fires = _fires(text, np.zeros_like(text.is_row))
    for variable in variables(text):
        found = explained(fires, variable, second_half(text))
        assert found.share[0] == 0 and found.entropy[0] == 0 and (found.top[0] == -1).all()
