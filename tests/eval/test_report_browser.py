"""The report in a real browser: no error, no sideways scrolling, readable in both themes."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from drawn_runs import MakeRun
from results import binary_result, put_result
from synthetic import DrawnTrack
from tracked import opened

from eval.job import run_eval
from eval.report.page import write_report

LONG = "a_very_long_name_without_any_space_in_it_at_all_that_no_phone_has_room_for"
WIDTHS = (360, 390, 768, 1280)
RUNS = {"one": (), LONG[:60]: ("data.mask.ratio=0.5", "data.mask.strategy=tube", "critic.weight=0.5")}

# Measures the page it stands in and tells the page around it.
PROBE = """<script>window.addEventListener('load', () => {
  const rgb = (e, p) => getComputedStyle(e)[p].match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = c => {
    const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const clear = c => c.startsWith('rgba(');
  const ground = e => {
    while (e !== document.body && clear(getComputedStyle(e).backgroundColor)) e = e.parentElement;
    return light(rgb(e, 'backgroundColor')); };
  const contrast = e => {
    const [high, low] = [light(rgb(e, 'color')), ground(e)].sort((x, y) => y - x);
    return (high + .05) / (low + .05); };
  const wide = [...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.scroll, pre, details'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length;
  const broken = [...document.images].filter(i => i.complete && i.naturalWidth === 0).length;
  const words = [...document.querySelectorAll(
    'h1, h2, h3, p, figcaption, td, th, dt, a, summary, small, .tile span, .of, .pm')];
  const cells = [...document.querySelectorAll('tr.published > *')];
  const apart = cells.every(e => ground(e) !== ground(document.body))
    ? document.querySelectorAll('tr.published').length : 0;
  parent.postMessage(`${innerWidth}: scroll=${document.documentElement.scrollWidth} wide=${wide} broken=${broken} `
    + `dark=${ground(document.body) < .2 ? 1 : 0} apart=${apart} `
    + `readable=${Math.min(...words.map(contrast)) >= 4.5 ? 1 : 0};`, '*');
});</script>"""

# Windows of headless Chromium are at least 500 pixels wide; frames in a page can be as narrow as a phone.
AROUND = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><title>seen </title>
<script>addEventListener('message', event => document.title += event.data);</script>"""


@pytest.fixture
def around(make_run: MakeRun, tmp_path: Path) -> Path:
    """A page that shows a full report of two runs, with long names in it, at several widths."""
    tracks = [DrawnTrack("anna.mp4"), DrawnTrack(f"{LONG}.mp4")]
    cfgs = [make_run(f"run.name={name}", *changes, tracks=tracks) for name, changes in RUNS.items()]
    with opened(cfgs[0], tmp_path) as tracker:
        for step in range(1, 21):
            tracker.log_metrics({"train/mse": 1 / step}, step)
    run_eval(cfgs[0], progress=False)
    for cfg in cfgs:
        put_result(cfg, "emotion-linear", _full_result())
    page = write_report(cfgs, tmp_path / "report.html", progress=False)
    page.write_text(page.read_text("utf-8").replace("</body>", PROBE + "</body>"), "utf-8")
    frames = [f'<iframe src="report.html" style="width:{width}px;height:800px;border:0"></iframe>' for width in WIDTHS]
    outer = tmp_path / "around.html"
    outer.write_text(AROUND + "".join(frames), "utf-8")
    return outer


def _full_result() -> dict[str, Any]:
    """A result that fills every table of the page."""
    scores = {"accuracy": 0.625, "auc": 0.75}
    shares = [{"share": share, "videos": 9, "mean": scores, "std": scores} for share in (1.0, 0.5, 0.1, 0.01)]
    groups = {f"{LONG}={value}": {"videos": 4, "metrics": {"accuracy": value / 9}} for value in range(3)}
    labels = {f"{LONG}/{number}": {"share": 0.5, "accuracy": 0.5, "auc": number / 9} for number in range(9)}
    intervals = {name: [0.5, 0.875] for name in scores}
    return binary_result(shares=shares, subgroups=groups, per_label=labels, intervals=intervals)


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_fits_and_reads(around: Path, tmp_path: Path, dark: bool) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("this test needs Chromium: apt-get install chromium")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    command += ["--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=10000", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run([*command, "--dump-dom", around.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>([^<]*)", done.stdout)
    assert title, done.stderr
    seen = dict(re.findall(r"(\d+): ([^;]*);", title[1]))
    assert seen == {
        str(width): f"scroll={width} wide=0 broken=0 dark={int(dark)} apart=11 readable=1" for width in WIDTHS
    }, done.stderr
    assert "CONSOLE" not in done.stderr
