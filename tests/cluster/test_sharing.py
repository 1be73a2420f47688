"""Several runs at once through one PostgreSQL ledger: one budget for each sender, whoever sends."""

from __future__ import annotations

import pytest
import yaml
from machine import crowd

from cluster.clusterbench import Bench, most_in

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

ROWS, RATE = 240, 40


def test_two_campaigns_on_one_sender_never_exceed_its_limit_together(bench: Bench) -> None:
    files = [bench.campaign(name, ROWS, f"{RATE}/s") for name in ("spring", "summer")]
    for run in [bench.send(file) for file in files]:
        run.must(0)
    for name in ("spring", "summer"):
        bench.judge(name, ROWS)
    spring, summer = ([at for at, _ in bench.seen(name)] for name in ("spring", "summer"))
    both = sorted(spring + summer)
    print(f"together at most {most_in(both, 1_000_000)} in a second, crowd {crowd():.1f}")
    assert most_in(both, 1_000_000) <= RATE * 1.05
    assert spring[0] < summer[-1] and summer[0] < spring[-1], "they went one after the other"


def test_two_senders_run_side_by_side_each_with_its_own_budget(bench: Bench) -> None:
    rows, rate = 120, 10  # far below what any machine can do: how quick this one is today is not judged
    files = [bench.campaign(name, rows, f"{rate}/s") for name in ("spring", "summer")]
    other = bench.root / files[1]
    content = yaml.safe_load(other.read_text())
    content["provider"]["token"] = "${OTHER_TOKEN}"
    other.write_text(yaml.safe_dump(content, sort_keys=False))
    runs = [bench.start("send", file, "--yes", OTHER_TOKEN="invented-token-77aa") for file in files]
    for run in runs:
        run.must(0)
    each = [[at for at, _ in bench.seen(name)] for name in ("spring", "summer")]
    alone, together = [most_in(times, 1_000_000) for times in each], most_in(sorted(each[0] + each[1]), 1_000_000)
    print(f"in any second at most {alone}, together {together}, crowd {crowd():.1f}")
    assert max(alone) <= rate * 1.05
    assert together > rate * 1.5, "they share one budget, or went one after the other"


def test_a_cluster_needs_a_ledger_that_all_can_reach(bench: Bench) -> None:
    file = bench.campaign("spring", 10, "10/s")
    run = bench.start("send", file, "--yes", "--workers", "2", CAMPAIGN_LEDGER="").must(2)
    assert "workers need a ledger that all of them can reach" in run.out
    assert bench.received() == 0
