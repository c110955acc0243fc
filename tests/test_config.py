"""Texts and mappings that become settings, and every mistake in them as one message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from gped_nas.config import Config, dump_yaml, load_yaml, parse, parse_value, read_yaml
from gped_nas.errors import ConfigError


class Inner(Config):
    width: int = Field(default=3, ge=1)
    rate: float = 0.1


class Outer(Config):
    name: str
    inner: Inner = Inner()
    many: tuple[Inner, ...] = Field(default=(), strict=False)
    flag: bool = False


class TestYaml:
    def test_a_mapping_is_plain_data(self):
        text = "name: a\ninner: {width: 2, rate: 1.0e-3}\nlist: [1, two, true, null]\n"
        assert load_yaml(text, "f") == {
            "name": "a",
            "inner": {"width": 2, "rate": 0.001},
            "list": [1, "two", True, None],
        }

    def test_dumped_is_loaded(self):
        value = {"b": [1, 2.5, None, "1e-3", "no"], "a": {"x": "h\u00e9", "y": True}}
        assert load_yaml(dump_yaml(value), "f") == value
        assert list(load_yaml(dump_yaml(value), "f")) == ["b", "a"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: 1\nb: 2\na: 3", "f:3: .*'a' appears twice"),
            ("a: {b: 1, b: 2}", "'b' appears twice"),
            ("a: &x [1]\nb: *x", "f:2: .*aliases are not allowed"),
            ("- 1", "found list, expected a mapping"),
            ("", "found NoneType"),
            ("text", "found str"),
            ("1: a", "expected a mapping of named settings"),
            ("no: a", "expected a mapping of named settings"),
            ("a: [1", "f:1: not readable as YAML"),
            ("a: 1\n b: 2", "f:2: not readable as YAML"),
            ("a: 1\n---\nb: 2", "not readable as YAML"),
            ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
            ("a: !!python/name:os.system", "could not determine a constructor"),
            ("!!python/object:os.x {}", "could not determine a constructor"),
            ("a: !own 1", "could not determine a constructor"),
            ("? [a, b]\n: 1", "a key must be a plain name"),
            ("a: {{b: 1}: 2}", "a key must be a plain name"),
            ("a: !!map [1]", "expected a mapping"),
            ("a: !!map x", "expected a mapping"),
            ("a: !!set [x]", "expected a mapping"),
            ("a: !!int ''", "f: not readable as YAML"),
            ("a: !!float ''", "f: not readable as YAML"),
            ("a: !!bool maybe", "f: not readable as YAML"),
            ("a: !!timestamp never", "f: not readable as YAML"),
            ("a: 2001-99-99", "f: not readable as YAML"),
            ("a: 0x_", "f: not readable as YAML"),
            ("a: " + "1:" * 300 + "1.0", "f:1: not readable as YAML: .* base 60"),
            ("a: " + "9" * 5000, "f:1: not readable as YAML: .* 5000 characters"),
            ("a: \x00", "not readable as YAML"),
            ("a: '\ud800'", "not readable as YAML"),
            ("[" * 20_000, "nested deeper than 32"),
            ("a: " + "[" * 20_000, "nested deeper than 32"),
            ("- " * 20_000, "nested deeper than 32"),
            ("a: " + "{a: " * 20_000, "nested deeper than 32"),
            ("a: " + "x" * 300_000, "larger than 262144 bytes"),
            ("# " + "\u00e9" * 140_000, "larger than 262144 bytes"),
        ],
        ids=lambda text: text[:24].encode("unicode_escape").decode(),
    )
    def test_what_is_no_mapping_of_plain_settings_is_refused(self, text, message):
        with pytest.raises(ConfigError, match=message) as caught:
            load_yaml(text, "f")
        assert str(caught.value).startswith("f:")
        assert len(str(caught.value)) < 500

    def test_a_bomb_of_aliases_is_refused_before_it_grows(self):
        lines = ["a0: &a0 [x, x]"]
        lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
        with pytest.raises(ConfigError, match="f:2: .*aliases are not allowed"):
            load_yaml("\n".join(lines), "f")

    @settings(deadline=None, derandomize=True, max_examples=300, database=None)
    @given(st.text(alphabet="ab1:-?[]{},&*!|>'\"#%@~ \n\t.e_<=", max_size=40))
    def test_any_text_is_a_mapping_or_one_message(self, text):
        try:
            assert isinstance(load_yaml(text, "f"), dict)
        except ConfigError as error:
            assert str(error).startswith("f:")

    def test_files(self, tmp_path):
        (tmp_path / "a.yaml").write_text("a: 1\n")
        assert read_yaml(tmp_path / "a.yaml") == {"a": 1}

        (tmp_path / "b.yaml").write_bytes(b"a: \xff\xfe")
        with pytest.raises(ConfigError, match="not a UTF-8 text file"):
            read_yaml(tmp_path / "b.yaml")

        for path in (tmp_path / "absent.yaml", tmp_path):
            with pytest.raises(ConfigError, match="no such file"):
                read_yaml(path)

    def test_a_value_of_the_command_line(self):
        assert parse_value("3", "--set a") == 3
        assert parse_value("[1, 2]", "--set a") == [1, 2]
        assert parse_value("", "--set a") is None
        with pytest.raises(ConfigError, match="--set a"):
            parse_value("b: c", "--set a")


class TestParse:
    def test_defaults_and_what_is_given(self):
        cfg = parse(Outer, {"name": "a", "inner": {"width": 5}, "many": [{"rate": 1.0}]}, "f")
        assert cfg == Outer(name="a", inner=Inner(width=5), many=(Inner(rate=1.0),))

    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            (
                {"name": "a", "inner": {"widht": 3}},
                "^f: inner.widht: unknown key; did you mean 'width'\\?$",
            ),
            (
                {"name": "a", "many": [{}, {"raet": 3}]},
                "^f: many.1.raet: unknown key; did you mean 'rate'\\?$",
            ),
            ({"nam": "a", "name": "a"}, "^f: nam: unknown key; did you mean 'name'\\?$"),
            ({"name": "a", "zzz": 1}, "unknown key; expected one of: flag, inner, many, name"),
            ({}, "^f: name: missing; give it a value$"),
            ({"name": 3}, "^f: name: found 3, expected a valid string$"),
            (
                {"name": "a", "inner": {"rate": "1e-3"}},
                "f: inner.rate: found the text '1e-3'.*write 1.0e-3",
            ),
            ({"name": "a", "inner": {"rate": "fast"}}, "found the text 'fast', expected a number$"),
            ({"name": "a", "inner": {"width": 2.5}}, "f: inner.width: found 2.5"),
            (
                {"name": "a", "inner": {"width": 0}},
                "f: inner.width: found 0, expected greater than",
            ),
            ({"name": "a", "inner": {"width": True}}, "f: inner.width: found True"),
            (
                {"name": "a", "inner": {"rate": float("nan")}},
                "f: inner.rate: found nan, expected a finite",
            ),
            ({"name": "a", "inner": {"rate": float("inf")}}, "f: inner.rate: found inf"),
            ({"name": "a", "flag": "no"}, "f: flag: found 'no'"),
            ({"name": "a", "flag": 1}, "f: flag: found 1"),
            ({"name": "a", "inner": [1]}, "f: inner: found"),
            ({"name": "a", "many": [3]}, "f: many.0: found 3"),
            ({"name": "a", 3: 1}, "f: 3: "),
            ({"name": "a", "inner": {True: 1}}, "f: inner.1: found True"),
            ([1], "^f: found \\[1\\], expected a mapping of settings$"),
            (None, "^f: found None, expected a mapping of settings$"),
            ({"name": "x" * 10_000, "flag": "y" * 10_000}, "\\.\\.\\."),
        ],
    )
    def test_each_mistake_is_a_message_that_names_file_and_key(self, mapping, message):
        with pytest.raises(ConfigError, match=message) as caught:
            parse(Outer, mapping, "f")
        assert len(str(caught.value)) < 300

    def test_all_mistakes_are_told_at_once(self):
        with pytest.raises(ConfigError) as caught:
            parse(Outer, {"nmae": 1, "flag": 3}, "f")
        assert len(str(caught.value).splitlines()) == 3

    def test_a_configuration_is_frozen_and_the_mapping_is_left_alone(self):
        mapping = {"name": "a", "inner": {"width": 5}}
        cfg = parse(Outer, mapping, "f")
        with pytest.raises(ValidationError, match="frozen"):
            cfg.name = "b"
        assert mapping == {"name": "a", "inner": {"width": 5}}
