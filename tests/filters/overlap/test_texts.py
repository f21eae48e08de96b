"""The search for a benchmark's texts: against a plain loop, and what counts as found."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from filters.overlap.texts import FREQUENT, TextIndex, grams_of
from filters.overlap.words import SHORT, is_distinct, words_of

QUESTION = (
    "Which of the three harbour cranes stands nearest to the red lighthouse keeper's cottage on the northern pier?"
)


def rows(index: TextIndex, *texts: str) -> list[int]:
    return [match.row for match in index.search(texts).matches]


def test_question_is_found_inside_of_other_text_in_any_form() -> None:
    index = TextIndex([["Unrelated words about seven other marine mammals and birds"], [QUESTION]])
    assert rows(index, f"<image>\nLook closely. {QUESTION.upper()} Explain.") == [1]
    assert index.search([QUESTION]).matches[0].share == 1.0
    assert rows(index, QUESTION.replace("red", "blue").replace("harbour", "river")) == []


def test_question_that_goes_on_into_the_answer_is_found() -> None:
    question = "Name the lighthouse keeper"
    index = TextIndex([[question, f"{question} Bartholomew Featherstonehaugh senior esquire"]])
    assert rows(index, question, "Bartholomew Featherstonehaugh, senior, Esquire") == [0]
    assert rows(index, question, "Somebody else entirely") == []


def test_short_question_must_be_a_whole_turn_or_line() -> None:
    index = TextIndex([["Which vehicle is parked beside the lighthouse?"]])
    assert rows(index, "which vehicle is parked beside the lighthouse") == [0]
    assert rows(index, "<image>\nWhich vehicle is parked beside the lighthouse?\nA. van\nB. bus") == [0]
    assert rows(index, "Tell me which vehicle is parked beside the lighthouse tower") == []


def test_generic_question_is_reported_and_not_found() -> None:
    index = TextIndex([["What is in the image?"]])
    matches = index.search(["What is in the image?", "A cat."])
    assert matches.matches == []
    assert matches.generic == {0}


def test_words_of_more_than_ten_rows_are_a_prompt() -> None:
    prompt = "Solve this geometry exercise stepwise, then verify every intermediate numeric result twice again"
    few = TextIndex([[f"{prompt} {number}"] for number in range(FREQUENT)])
    many = TextIndex([[f"{prompt} {number}"] for number in range(FREQUENT + 1)])
    assert rows(few, prompt) == list(range(FREQUENT))
    assert rows(many, prompt) == []


def test_share_is_that_of_the_n_grams() -> None:
    words = [f"word{number}" for number in range(26)]  # 14 n-grams of 13
    index = TextIndex([[" ".join(words)]])
    (match,) = index.search([" ".join(words[:14])]).matches
    assert match.share == 2 / 14
    assert match.at == " ".join(words[:13])


few_words = st.lists(st.sampled_from("alpha beta gamma delta epsilon zeta the is what".split()), max_size=18)
texts = st.lists(few_words.map(" ".join), min_size=1, max_size=3)


@settings(max_examples=200)
@given(st.lists(texts, max_size=4), texts, st.lists(st.tuples(few_words, few_words), max_size=2))
def test_search_agrees_with_a_plain_loop(
    benchmark: list[list[str]], data: list[str], around: list[tuple[list[str], list[str]]]
) -> None:
    """Texts of the data that were made from those of the benchmark are among those that are searched."""
    for (before, after), row in zip(around, benchmark, strict=False):
        data = [*data, " ".join([*before, row[-1], *after]), row[0]]
    found = {(match.row, match.share) for match in TextIndex(benchmark).search(data).matches}
    assert found == by_loops(benchmark, data)


def by_loops(benchmark: Sequence[Sequence[str]], data: Sequence[str]) -> set[tuple[int, float]]:
    stream = [word for text in data for word in words_of(text)]
    turns = [words_of(text) for text in data]
    found = set()
    for row, variants in enumerate(benchmark):
        best = 0.0
        for text in variants:
            grams = {gram for gram in grams_of(tuple(words_of(text))) if is_distinct(gram)}
            hits = 0
            for gram in grams:
                inside = any(tuple(stream[n : n + len(gram)]) == gram for n in range(len(stream)))
                hits += inside if len(gram) >= SHORT else list(gram) in turns
            best = max(best, hits / len(grams) if grams else 0)
        if best:
            found.add((row, best))
    return found


def test_questions_that_begin_alike_are_not_compared_one_by_one() -> None:
    begin = "watch this film until its dramatic harbour scene then"
    index = TextIndex([[f"{begin} count boat{n}"] for n in range(50)])
    (of_length,) = index._long.values()
    assert {length: len(grams) for length, grams in of_length.items()} == {11: 50}
    assert rows(index, f"{begin} count boat7, please") == [7]
