"""One reader of numbers: what Python or YAML 1.1 would read as another number is refused everywhere."""

import math

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from elastune.sim.model.errors import InvalidTraceError
from elastune.sim.model.numbers import number_of, whole_number_of
from elastune.traces.formats.csv_rows import read_rows
from elastune.traces.formats.yaml_text import dump_yaml, parse_yaml

SURPRISING = ["1_0", "010", "-012", "0x10", "0o10", "0b10", "1:30", "1:30.5", "00.5", "1,5", "١٢", "1e", "- 1"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("-3", -3), ("+3", 3), ("0", 0), (" 7 ", 7), ("0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0)],
)
def test_a_decimal_is_the_number_that_it_says(text, number):
    assert number_of(text) == number
    assert type(number_of(text)) is type(number)
    assert parse_yaml(text, "here") == number


@pytest.mark.parametrize("text", SURPRISING)
def test_what_reads_as_another_number_elsewhere_is_no_number(text):
    with pytest.raises(ValueError, match=r"^must be a number"):
        number_of(text)
    with pytest.raises(ValueError, match=r"^must be a whole number"):
        whole_number_of(text)
    assert parse_yaml(f"key: {text.replace('- ', '-_')}", "here") == {"key": text.replace("- ", "-_")}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("010", "without leading zeros"),
        ("1_0", "without underscores"),
        ("nan", "finite"),
        ("1e999", "1.8e308"),
        ("9" * 5000, "at most 400 characters"),
    ],
)
def test_a_refusal_says_what_to_change(text, wanted):
    with pytest.raises(ValueError, match=wanted):
        number_of(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 100_000, "- " * 100_000, "a: &a [*a]"])
def test_what_is_nested_without_end_is_refused(text):
    with pytest.raises(InvalidTraceError, match=r"^here: malformed YAML: nested too deep"):
        parse_yaml(text, "here")


def test_a_score_may_have_diverged():
    assert math.isnan(number_of("NaN", is_score=True))
    assert number_of("-inf", is_score=True) == -math.inf


def test_whole_numbers_may_be_written_with_a_point():
    assert (whole_number_of("3.0"), whole_number_of("3e2")) == (3, 300)
    with pytest.raises(ValueError, match="must be a whole number"):
        whole_number_of("3.5")


@pytest.mark.parametrize("text", ["1_0", "010", "1e999", "nan"])
def test_a_table_refuses_them_and_names_the_cell(tmp_path, text):
    table = tmp_path / "t.csv"
    table.write_text(f"gpus\n1\n{text}\n")
    with pytest.raises(InvalidTraceError, match=rf"row 2, column gpus: is '{text}', but must be a (finite )?number"):
        read_rows(table)[1].positive_number("gpus")


def test_numbers_tagged_by_hand_are_read_alike():
    assert parse_yaml("!!int 12", "here") == 12
    with pytest.raises(InvalidTraceError, match="here, line 1: '010' must be a number without"):
        parse_yaml("!!int 010", "here")


def test_a_number_that_no_float_holds_is_no_fault_of_the_yaml():
    with pytest.raises(
        InvalidTraceError, match=r"^here, line 2: '1e999' must be a number that is not larger than 1.8e308$"
    ):
        parse_yaml("a: 1\nb: 1e999", "here")


def test_aliases_that_stand_for_too_many_values_are_refused():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(
        InvalidTraceError, match=r"^here: holds more than 1,000,000 values, those behind aliases included$"
    ):
        parse_yaml("\n".join(lines), "here")
    assert parse_yaml("a: &a [1, 2]\nb: *a", "here") == {"a": [1, 2], "b": [1, 2]}


TEXTS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.sampled_from(SURPRISING)


@settings(max_examples=examples(50))
@given(st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=3), max_size=4))
def test_yaml_that_is_written_reads_back(mapping):
    assert parse_yaml(dump_yaml(mapping), "here") == mapping


@settings(max_examples=examples(50))
@given(st.from_regex(r"[-+]?[0-9]{1,5}(\.[0-9]{0,4})?([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_text_that_looks_like_a_number_stays_text(text):
    assert parse_yaml(dump_yaml({"key": text}), "here") == {"key": text}
