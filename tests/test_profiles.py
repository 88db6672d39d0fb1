"""The profiles that come with workloom load, state what they are worth, and give the figures they were made from."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from workloom.engine import profile
from workloom.engine.profile import FOLDER, Profile
from workloom.errors import ProfileError

PROMISED = {"llama-3.1-70b-h200x4", "qwen3-32b-h200x2", "qwen3-30b-a3b-h200x1", "llama-3.1-8b-h100x1"}
NAMES = profile.names()
COMPUTED = [name for name in NAMES if "aiconfigurator-core" in profile.load(name).source]
MEASURED = [name for name in NAMES if name not in COMPUTED]


def step_ms(p: Profile, new: int = 0, cached: int = 0, calls: int = 0, context: int = 0) -> float:
    """GPU time of one step by the form, written out on its own: one chunk, `calls` decodes of `context` tokens."""
    c = p.step
    bound = float(c.weights_ps)
    if c.experts:
        bound += c.experts_ps * (1 - (1 - c.experts_per_token / c.experts) ** (new + calls))
    if new:
        bound = max(bound, c.prefill_base_ps + c.prefill_token_ps * new)
    pairs = new * cached + new * new / 2
    return (bound + c.sequence_ps * calls + c.pair_ps * pairs + c.context_token_ps * calls * context) / 1e9


def test_the_promised_profiles_exist() -> None:
    assert set(NAMES) >= PROMISED
    assert len(NAMES) >= 6


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_profile_says_what_it_was_measured_on_and_how_far_a_replay_is_from_it(name: str) -> None:
    p = profile.load(name)
    assert p.name == name
    assert p.source.startswith("workloom calibrate: ")
    assert 0 < p.error.mean < p.error.decode_max < 0.1
    assert p.error.mixed_max is not None
    assert max(p.error.prefill_max, p.error.mixed_max) <= 0.1
    assert p.error.points > 100


@pytest.mark.parametrize("name", COMPUTED)
def test_every_profile_loads_and_states_its_worth(name: str) -> None:
    p = profile.load(name)
    assert p.name == name
    assert "aiconfigurator-core 0.12.0" in p.source
    assert {"step.launch_ps", "step.admit_ps", "front_end.call_ps", "front_end.prompt_token_ps"} <= set(
        p.not_identified
    )
    worst = 0.27 if "fp8" in p.dtype else 0.11
    assert p.error.mixed_max is not None
    for share in (p.error.prefill_max, p.error.decode_max, p.error.mixed_max):
        assert 0 < p.error.mean < share < worst
    assert p.error.mean < 0.065
    assert p.error.points > 80


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_can_be_run(name: str) -> None:
    p = profile.load(name)
    c = p.step
    for field in c.__struct_fields__:
        value = getattr(c, field)
        numbers = list(np.ravel(value)) if isinstance(value, tuple) else [value + 1]
        assert all(number > 0 for number in numbers), field
    assert min(c.weights_ps, c.prefill_token_ps, c.pair_ps, c.context_token_ps, c.launch_ps) > 0
    assert c.pair_ps % 2 == 0, "pair_ps * n^2 / 2 is a whole number"
    assert bool(c.experts) == bool(c.experts_per_token) == bool(c.experts_ps) == ("a3b" in name)
    assert list(c.graph_sizes) == sorted(set(c.graph_sizes))
    assert p.kv_tokens is not None
    assert p.kv_tokens >= p.max_model_len >= p.max_batched_tokens, "one call of the longest context fits"
    assert p.kv_tokens % p.block_tokens == 0


FIGURES_8B_H200 = [
    ({"new": 512}, 11.5),
    ({"new": 2048}, 43.4),
    ({"new": 8192}, 198.9),
    ({"new": 32_768}, 1110),
    ({"new": 65_536}, 3103),
    ({"new": 2048, "cached": 65_536}, 151.3),
    ({"calls": 1, "context": 2048}, 4.9),
    ({"calls": 32, "context": 2048}, 7.3),
    ({"calls": 128, "context": 2048}, 13.9),
    ({"calls": 32, "context": 32_768}, 36.3),
    ({"calls": 8, "context": 131_072}, 36.5),
]


@pytest.mark.parametrize(("step", "ms"), FIGURES_8B_H200)
def test_figures_of_the_tables_are_met_within_the_stated_error(step: dict[str, int], ms: float) -> None:
    p = profile.load("llama-3.1-8b-h200x1")
    stated = p.error.prefill_max if "new" in step else p.error.decode_max
    assert step_ms(p, **step) == pytest.approx(ms, rel=stated + 0.005)  # the figures are rounded


def test_experts_make_decoding_dearer_only_until_all_are_read() -> None:
    """The first 32 calls awaken most experts of a mixture; the next 32 hardly any."""
    p = profile.load("qwen3-30b-a3b-h200x1")
    one, some, more = (step_ms(p, calls=calls, context=512) for calls in (1, 32, 64))
    assert some > 3 * one
    assert more < 1.3 * some


def test_more_gpus_and_faster_ones_are_not_slower() -> None:
    for slow, fast in [
        ("llama-3.1-8b-h100x1", "llama-3.1-8b-h200x1"),
        ("llama-3.1-70b-h100x4", "llama-3.1-70b-h100x8"),
        ("qwen3-30b-a3b-h100x1", "qwen3-30b-a3b-h100x2"),
    ]:
        assert step_ms(profile.load(fast), calls=32, context=32_768) < step_ms(
            profile.load(slow), calls=32, context=32_768
        )


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(ProfileError, match="no engine profile called") as caught:
        profile.load("llama-3.1-70b-h200x8")
    assert caught.value.hint == "did you mean llama-3.1-70b-h200x4?"


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    rows = yaml.safe_load((FOLDER / "qwen3-32b-h200x2.yaml").read_text())
    rows["step"]["wieghts_ps"] = 1
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(rows))
    with pytest.raises(ProfileError, match="wieghts_ps") as caught:
        profile.load(str(path))
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (None, "block_tokens", 0),
        (None, "max_num_seqs", 0),
        ("step", "weights_ps", -1),
        ("step", "graph_sizes", [4, 2]),
        ("step", "experts_ps", 5),
    ],
)
def test_a_profile_that_cannot_be_is_refused(tmp_path: Path, part: str | None, name: str, value: object) -> None:
    rows = yaml.safe_load((FOLDER / "qwen3-32b-h200x2.yaml").read_text())
    (rows if part is None else rows[part])[name] = value
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(rows))
    with pytest.raises(ProfileError, match="malformed"):
        profile.load(str(path))
