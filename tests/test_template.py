"""What a chat template makes of prompts: the server counts more, and finds less again."""

from __future__ import annotations

from itertools import pairwise

from workloom.drive.template import ServedKeys
from workloom.engine.profile import Template
from workloom.prefix import common
from workloom.prompt import Prompt, planned
from workloom.session import Call, Edge, Inherit, Part, Session

QWEN = Template(call_tokens=17, turn_tokens=5.67, tail_tokens=6, answers="rewritten")


def chain(turns: int, *, keep: int | None = None) -> list[Prompt]:
    """500 tokens a turn, answers of 300; the last turn keeps `keep` tokens of its history."""
    calls = []
    for turn in range(turns):
        before = f"c{turn - 1}"
        calls.append(
            Call(
                id=f"c{turn}",
                after=(Edge(before),) if turn else (),
                agent="main",
                inherit=Inherit(before, keep if turn == turns - 1 else None) if turn else None,
                fresh=(Part("user", 500),),
                output_tokens=300,
            )
        )
    return [prompt for _, prompt in planned(Session(id="s", calls=tuple(calls)))]


def test_a_server_without_a_template_sees_the_prompts_as_they_are() -> None:
    for prompt in chain(3):
        assert ServedKeys(Template()).of(prompt) == (prompt.key, prompt.answer_number)


def test_the_server_counts_more_for_every_level() -> None:
    keys = ServedKeys(QWEN)
    assert [keys.of(prompt)[0].tokens for prompt in chain(5)] == [517, 1323, 2128, 2934, 3740]


def test_the_next_prompt_repeats_all_but_the_end() -> None:
    """Third turn: 2,100 tokens are 2,128 served, 2,122 of them found again: two blocks of 1,056, not one."""
    keys = ServedKeys(QWEN)
    served = [keys.of(prompt)[0] for prompt in chain(5)]
    for before, after in pairwise(served):
        assert common(before, after) == before.tokens - 6


def test_rewritten_answers_are_not_found_and_repeated_ones_are() -> None:
    first, second = chain(2)
    for answers, found in (("rewritten", 511), ("repeated", 517 + 300)):
        keys = ServedKeys(Template(call_tokens=17, turn_tokens=9.0, tail_tokens=6, answers=answers))
        generated = keys.of(first)[0].plus(keys.of(first)[1], 300)
        assert keys.of(second)[0].tokens == 17 + 9 + 1300
        assert common(generated, keys.of(second)[0]) == found
    assert ServedKeys(Template()).of(first)[1] == first.answer_number != ServedKeys(QWEN).of(first)[1]


def test_a_cut_history_loses_its_turns_too() -> None:
    """The last call keeps 1,300 tokens: the prompt of the second, and with it one turn before its own."""
    keys = ServedKeys(QWEN)
    prompts = chain(4, keep=1300)
    served = [keys.of(prompt)[0] for prompt in prompts]
    assert common(served[1], served[3]) == served[1].tokens - 6
    assert served[3].tokens == 17 + round(5.67 * 2) + 1300 + 500
