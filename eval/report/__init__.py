"""The self-contained HTML report; `eval.report.page.write_report` is its door."""
