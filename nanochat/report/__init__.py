"""The report card of a run. Read `read` (what the folder holds), `words` and `card` (what is said of it), then the two
forms it takes: `markdown`, and `page` with its `plots`."""

from nanochat.report.write import ReportConfig, main, write_report

__all__ = ["ReportConfig", "main", "write_report"]
