"""What a message shows of data and of libraries' words."""

from pipeline.core.errors import list_first, one_line


def test_what_a_library_says_is_one_line_without_characters_that_steer_a_terminal() -> None:
    assert one_line(ValueError("bad\n  \x1b[31mid\x07 ü\u202e")) == "bad [31mid ü"


def test_of_many_values_the_first_are_listed_and_the_others_counted() -> None:
    assert list_first(["us", "x\n"]) == r"'us', 'x\n'"
    assert list_first(range(22)).endswith(", 18, 19 and 2 more")
    assert len(list_first(["x" * 10**6] * 3000)) < 2000
