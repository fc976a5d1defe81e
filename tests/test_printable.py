"""Text of others: fit for a terminal, and for records that go round."""

import pytest

from naturalist.printable import in_markdown, printable, without_secrets


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Amphibia kröte.jpg", "Amphibia kröte.jpg"),
        ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
        ("two\nlines\r\x07", "two�lines��"),
        ("a\u2028b\u202ec", "a�b�c"),
        ("\udcff.jpg", "�.jpg"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        ("می\u200cخواهم 👩\u200d🌾", "می\u200cخواهم 👩\u200d🌾"),
    ],
)
def test_a_terminal_gets_nothing_that_it_would_obey(name, shown):
    assert printable(name) == shown


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Acer negundo, learning_rate 1.0e-4 (2)", "Acer negundo, learning_rate 1.0e-4 (2)"),
        ("a|b*c*", "a\\|b\\*c\\*"),
        ("_hidden_ x_1", "\\_hidden\\_ x_1"),
        ("<b>&lt;[a](b)`c`", "\\<b\\>\\&lt;\\[a\\](b)\\`c\\`"),
        ("$$x$$ #1 ~y~ \\", "\\$\\$x\\$\\$ \\#1 \\~y\\~ \\\\"),
        ("two\nlines", "two�lines"),
    ],
)
def test_markdown_shows_a_name_as_it_is(name, written):
    assert in_markdown(name) == written


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--storage postgresql://u:PASSWORD@h/db", "--storage postgresql://u:***@h/db"),
        ("postgresql+psycopg://u:PASS/W@RD:9@h:5432/db", "postgresql+psycopg://u:***@h:5432/db"),
        ("redis://:PASSWORD@h", "redis://:***@h"),
        ("https://TOKEN@github.com/a/b and http://u:PASSWORD@h", "https://***@github.com/a/b and http://u:***@h"),
        ("https://h/n.zip?X-Amz-Signature=PASSWORD&x=1", "https://h/n.zip?X-Amz-Signature=***&x=1"),
        ("postgresql://u@h/db?password=PASSWORD", "postgresql://u@h/db?password=***"),
        ("http://localhost:8080/a@b", "http://localhost:8080/a@b"),
        ("postgresql://user@host/name", "postgresql://user@host/name"),
        ("nobody: me@home", "nobody: me@home"),
    ],
)
def test_passwords_in_addresses_are_hidden_and_nothing_else(text, shown):
    assert without_secrets(text) == shown
    assert without_secrets({"a": [text, 1]}) == {"a": [shown, 1]}
