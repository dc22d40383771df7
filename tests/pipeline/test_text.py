"""Tables for people."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import counts, duration, nearest, plural, printable, short, size_text, table


def test_values_stand_below_each_other_within_80_columns() -> None:
    lines = table([("a", "word " * 30), ("longer", ["one", "two"]), ("none", ""), ("", "below")]).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[-3:]] == [["longer", "one"], ["two"], ["below"]]
    assert lines[-3].index("one") == lines[-2].index("two") == lines[-1].index("below") == lines[0].index("word")
    assert "none" not in "".join(lines)


def test_a_long_url_is_not_cut() -> None:
    url = "s3://bucket/" + "x" * 100
    assert url in table([("dataset", url)])


@given(st.text(max_size=60), st.integers(3, 40))
def test_names_from_outside_stay_on_one_short_line(name: str, width: int) -> None:
    text = short(name, width)
    assert len(text) <= width
    assert text.isprintable()
    if len(printable(name)) <= width:
        assert text == printable(name)


def test_names_that_are_not_known_are_answered_with_known_ones() -> None:
    assert nearest("ana", ["anna", "bert"]) == " (nearest: 'anna')"
    assert nearest("zzz", ["bert.mp4", "anna.mp4"]) == " (one that it holds: 'anna.mp4')"
    assert nearest("zzz", []) == ""


def test_numbers() -> None:
    assert [duration(0), duration(4.54), duration(119), duration(120), duration(7200), duration(4.5e6)] == [
        "0.0 seconds",
        "4.5 seconds",
        "119.0 seconds",
        "2.0 minutes",
        "2.0 hours",
        "1,250.0 hours",
    ]
    assert counts({"a": 1, "b": 2000, "c": 1}) == "b 2,000, a 1, c 1"
    assert [plural(1, "x"), plural(2, "x"), plural(0, "identity", "identities")] == ["1 x", "2 xs", "0 identities"]
    assert [size_text(0), size_text(999), size_text(1_500_000), size_text(10**16)] == [
        "0 B",
        "999 B",
        "1.5 MB",
        "10000.0 TB",
    ]
