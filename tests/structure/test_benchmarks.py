"""Tables of benchmarks are those of their records, which come from committed code."""

import json
import re
from pathlib import Path

import pytest

from nanochat.bench.measure import table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "benchmarks" / "README.md"
TABLE = re.compile(r"<!-- record: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
QUOTED = TABLE.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("path", "quoted"), QUOTED, ids=[path for path, _ in QUOTED])
def test_a_table_is_that_of_its_record(path: str, quoted: str) -> None:
    record = json.loads((ROOT / path).read_text(encoding="utf-8"))
    assert quoted == table(record), f"write this into {PAGE.name}:\n{table(record)}"
    assert re.fullmatch("[0-9a-f]{12}", record["commit"]), "recorded from files that no commit holds"
    assert all(record.get("checks", {}).values())
    assert record["command"] in PAGE.read_text(encoding="utf-8")


def test_every_record_is_quoted() -> None:
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "runs").glob("bench_*.json"))
    assert found == sorted(path for path, _ in QUOTED)
