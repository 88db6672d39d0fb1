"""Promises: how they are read, and how a run is judged by them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from workloom.answers.slo import Slo, call_limits, exit_code, judge, judged, overall, slo, slos
from workloom.clock import NS
from workloom.errors import UsageError
from workloom.metrics.estimate import Estimate, estimate
from workloom.metrics.figure import figure
from workloom.metrics.frame import Window
from workloom.metrics.measured import Measured, measured_records
from workloom.records import CallRecord, CallStatus


def call(instance: int, ttft_s: float, status: CallStatus = "ok", agent: str = "main") -> CallRecord:
    sent = instance * NS
    done = sent + int(ttft_s * NS)
    there = status == "ok"
    return CallRecord(
        instance=instance,
        session=f"s{instance}",
        call="0",
        agent=agent,
        model="m",
        status=status,
        due_ns=sent,
        sent_ns=sent,
        first_ns=done if there else None,
        last_ns=done if there else None,
        done_ns=done,
    )


def run_of(calls: list[CallRecord]) -> Measured:
    return measured_records(calls, window=Window(0, 10_000 * NS))


@pytest.mark.parametrize(
    ("text", "sign", "limit"),
    [
        ("ttft_p95<=0.75s", "<=", 0.75),
        ("ttft_p95 <= 750 ms", "<=", 0.75),
        ("tbc_p95<75ms", "<", 0.075),
        ("tbc_mean<=500us", "<=", 0.0005),
        ("e2e_p99≤2min", "<=", 120.0),
        ("e2e_p99<=1h", "<=", 3600.0),
        ("ttft_p95<=0.75", "<=", 0.75),
        ("errors<2%", "<", 0.02),
        ("errors<=0.02", "<=", 0.02),
        ("ttft_p99.9[agent=main]<=1s", "<=", 1.0),
    ],
)
def test_limits_are_in_the_unit_of_their_metric(text: str, sign: str, limit: float) -> None:
    read = slo(text)
    assert (read.sign, read.limit) == (sign, pytest.approx(limit))
    again = slo(read.say())
    assert (again.figure, again.sign, again.limit) == (read.figure, read.sign, pytest.approx(read.limit))


def test_all_faults_of_all_slos_are_told_at_once_with_the_nearest_names() -> None:
    with pytest.raises(UsageError) as fault:
        slos(["ttft_p95<=0.75q", "tbcc_p95<=75ms", "errors<2%", "ttft<=1s", "nothing", "errors<=200%", "ttft_p95>=1s"])
    told = str(fault.value)
    assert told.startswith("6 SLOs cannot be read")
    for words in (
        "no figure in q",
        "did you mean tbc?",
        "a value a call",
        "FIGURE<=LIMIT",
        "at most 1",
        "better when lower",
    ):
        assert words in told


def test_one_figure_has_one_limit() -> None:
    with pytest.raises(UsageError, match="two limits"):
        slos(["ttft_p95<=1s", "ttfc_p95<2s"])


def test_slos_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "slos.yaml"
    path.write_text("- ttft_p95<=0.75s\n- errors<2%\n")
    assert [one.text for one in slos([f"@{path}", "tbc_p95<=75ms"])] == [
        "ttft_p95<=0.75s",
        "errors<2%",
        "tbc_p95<=75ms",
    ]
    path.write_text("ttft: 1\n")
    with pytest.raises(UsageError, match="a list"):
        slos([f"@{path}"])
    path.write_text("- ttft_p95<=0.75q\n")
    with pytest.raises(UsageError, match="SLO 1"):
        slos([f"@{path}"])
    with pytest.raises(UsageError, match="cannot be read"):
        slos([f"@{tmp_path / 'none.yaml'}"])


def test_by_the_interval_a_limit_inside_it_cannot_be_told() -> None:
    asked = slo("ttft_p95<=1s")
    sure = Estimate("ttft_p95", 0.8, 0.7, 0.9)
    assert judged(asked, sure).verdict == "pass"
    assert judged(asked, Estimate("ttft_p95", 1.3, 1.1, 1.5)).verdict == "fail"
    straddling = judged(asked, Estimate("ttft_p95", 0.95, 0.9, 1.01, values=1000))
    assert straddling.verdict == "not enough data"
    assert "inside the 95% interval" in straddling.why
    assert judged(asked, Estimate("ttft_p95", 0.95, 0.9, 1.01, values=1000), by="point").verdict == "pass"
    assert judged(asked, Estimate("ttft_p95", 0.9, why="not enough data: 3 sessions")).verdict == "not enough data"
    assert judged(asked, Estimate("ttft_p95", float("inf"), 1.2, float("inf"))).verdict == "fail"


def test_a_limit_is_met_at_itself_unless_it_is_strict() -> None:
    at = Estimate("ttft_p95", 1.0, 1.0, 1.0)
    assert judged(slo("ttft_p95<=1s"), at).verdict == "pass"
    assert judged(slo("ttft_p95<1s"), at).verdict == "fail"


def test_by_the_point_a_run_still_has_to_hold_enough() -> None:
    """Five values beyond a percentile; as many calls as make one failure keep the limit."""
    asked = slo("ttft_p95<=1s")
    assert judged(asked, Estimate("ttft_p95", 0.5, values=99), by="point").verdict == "not enough data"
    assert judged(asked, Estimate("ttft_p95", 0.5, values=100), by="point").verdict == "pass"
    errors = slo("errors<2%")
    assert judged(errors, Estimate("errors", 0.0, values=49), by="point").verdict == "not enough data"
    assert judged(errors, Estimate("errors", 0.0, values=50), by="point").verdict == "pass"


def test_a_failing_server_does_not_pass() -> None:
    """One call in ten fails: it never answered, so the 95th percentile is infinite however fast the others were."""
    calls = [call(k, 0.1, "error" if k % 10 == 0 else "ok") for k in range(400)]
    latency, errors = judge(run_of(calls), slos(["ttft_p95<=10s", "errors<2%"]), by="point")
    assert (latency.verdict, errors.verdict) == ("fail", "fail")
    assert latency.estimate.value == float("inf")
    assert errors.estimate.value == pytest.approx(0.1)
    assert exit_code([latency, errors]) == 3


def test_a_first_token_of_a_call_that_then_timed_out_keeps_no_promise() -> None:
    """Its TTFT is known, and stands in the figures; but for an SLO a failed call is infinitely slow."""
    calls = [replace(call(i, 30.0, "timeout"), first_ns=i * NS + NS // 10) for i in range(400)]
    run = run_of(calls)
    assert estimate(run, figure("ttft_p95")).value == 0.1
    (told,) = judge(run, slos(["ttft_p95<=0.75s"]), by="point")
    assert (told.verdict, told.estimate.value) == ("fail", float("inf"))


def test_goodput_is_judged_by_the_other_promises() -> None:
    """100 calls in 100 s, every fourth too slow: 0.75 a second are good, of one a second that come."""
    run = measured_records([call(i, 2.0 if i % 4 == 0 else 0.1) for i in range(100)], window=Window(0, 100 * NS))
    told = judge(run, slos(["ttft_p95<=1s", "goodput_calls_per_s>=0.7"]), by="point")
    assert told[1].estimate.value == pytest.approx(0.75, abs=0.02)
    alone = judge(run, slos(["goodput_calls_per_s>=0.7"]), by="point")
    assert alone[0].verdict == "not enough data"


def test_a_promise_about_a_price_that_no_command_is_told_is_refused_beforehand() -> None:
    with pytest.raises(UsageError, match="--price-per-gpu-hour"):
        slos(["cost_per_task<=1"])


def test_an_slo_may_be_about_one_role() -> None:
    calls = [call(k, 0.1 if k % 2 else 3.0, agent="main" if k % 2 else "explore:7") for k in range(400)]
    main, all_ = judge(run_of(calls), slos(["ttft_p95[agent=main]<=1s", "ttft_p95<=1s"]), by="point")
    assert (main.verdict, all_.verdict) == ("pass", "fail")
    with pytest.raises(UsageError, match="explore"):
        judge(run_of(calls), slos(["ttft_p95[agent=explor]<=1s"]))


def test_a_run_without_calls_has_not_enough_data() -> None:
    found = judge(run_of([]), slos(["ttft_p95<=1s", "errors<2%"]))
    assert [one.verdict for one in found] == ["not enough data"] * 2
    assert exit_code(found) == 4


def test_one_failure_decides_for_all() -> None:
    good, bad = (
        judged(slo("ttft_p95<=1s"), Estimate("", 0.5, 0.4, 0.6)),
        judged(slo("ttft_p95<=1s"), Estimate("", 2, 2, 2)),
    )
    unknown = judged(slo("ttft_p95<=1s"), Estimate("", None))
    assert overall([good, unknown, bad]) == "fail"
    assert overall([good, unknown]) == "not enough data"
    assert (overall([good]), exit_code([good]), exit_code([])) == ("pass", 0, 0)


def test_goodput_counts_by_the_limits_of_single_calls() -> None:
    limits = call_limits(slos(["ttft_p95<=0.75s", "tbc_p99<75ms", "errors<2%"]))
    assert [(one.metric, one.at_most, one.strict, one.statistic) for one in limits] == [
        ("ttft_s", 0.75, False, ""),
        ("tbc_s", 0.075, True, "p99"),
    ]


@given(
    st.floats(0.001, 100), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["<=", "<"]), st.floats(0.001, 100)
)  # fmt: skip
def test_the_interval_never_says_the_opposite_of_its_point(
    value: float, below: float, above: float, sign: str, limit: float
) -> None:
    asked = Slo(slo("ttft_p95<=1s").figure, sign, limit, "")  # type: ignore[arg-type]
    found = Estimate("ttft_p95", value, value * (1 - below), value * (1 + above), values=10_000)
    by_interval, by_point = judged(asked, found).verdict, judged(asked, found, by="point").verdict
    assert by_point in ("pass", "fail")
    assert by_interval in (by_point, "not enough data")
