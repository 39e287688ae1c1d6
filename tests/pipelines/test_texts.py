"""Untrusted texts have no effect on a terminal, in Markdown and in a shell."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from postprior.pipelines.api.init import init
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import (
    LONGEST,
    Markdown,
    escape_controls,
    format_warning,
    markdown,
    markdown_code,
    shell_quoted,
    tell,
)

STEERING = "\x1b]0;pwn\x07\x1b[31mred"
HIDING = "\x00\x08\x7f\x85\x9b\u061c\u00ad\u200b\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0041\udcff"
PARTS = [
    *(
        "<script>",
        "<img src=x onerror=alert(1)>",
        "</td>",
        "<!--",
        "-->",
        "<http://q.r>",
        "&lt;",
        "&#60;",
        "&",
    ),
    *(
        "[x](javascript:alert(1))",
        "[x]:",
        "![",
        "]",
        "(",
        ")",
        "[^1]",
        "[ ]",
        "http://a.b/c",
        "www.a.bc",
        "a@b.cd",
    ),
    *(
        "`",
        "``",
        "\\",
        "\\|",
        "|",
        "*",
        "**",
        "_",
        "__",
        "~~",
        "^",
        "$x$",
        "{{x}}",
        "!",
        '"',
        "'",
        ":",
        "://",
    ),
    *("#", "## ", "-", "--", "---", "+", "=", "1.", "1)", "> ", ":--", " ", "  ", "a", "b1", "é", "\u00a0"),
    *("\n", "\r", "\t", "\u2028", "\u202e", "\u200b", "\x1b[31m", "\U0001f469\u200d\U0001f680"),
]


def mixed(seed: int, count: int) -> Iterator[str]:
    """Yield texts of up to six parts with a special meaning in Markdown or a terminal."""
    rng = np.random.default_rng(seed)
    for size in rng.integers(1, 7, count):
        yield "".join(rng.choice(PARTS, size))


class Page(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(" ".join([tag, *(f"{name}={value}" for name, value in attrs)]))

    def handle_comment(self, data: str) -> None:
        self.tags.append(f"!{data}")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("# Of ", ""), ("- a\n- ", "\n- b"), ("| a |\n| --- |\n| ", " |")]
)
def test_markdown_shows_the_text_without_effect(before: str, after: str) -> None:
    renderer = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    bare = Page(renderer.render(f"{before}text{after}"))
    for text in [*PARTS, *mixed(0, 1500)]:
        page = Page(renderer.render(f"{before}{markdown(text)}{after}"))
        assert page.tags == bare.tags, text
        assert page.text == bare.text.replace("text", escape_controls(text)), text


def test_markdown_leaves_ordinary_names_alone() -> None:
    for name in (
        "m0",
        "train",
        "0",
        "flow_matching",
        "β-recall ↑",
        "0.836 (0.816 to 0.858)",
        "3 × 16",
        "-1",
        "1.5 mg",
    ):
        assert markdown(name) == name
    assert markdown("<unknown>") == "&lt;unknown&gt;"
    assert markdown("site|ward") == "site\\|ward"
    assert markdown(7) == "7"
    assert markdown(Markdown("**bold**")) == "**bold**"
    assert markdown_code("digits") == "`digits`"
    assert markdown_code("a`<b>") == "a\\`&lt;b&gt;"


def test_control_characters_are_shown() -> None:
    assert escape_controls(STEERING) == r"\x1b]0;pwn\x07\x1b[31mred"
    assert escape_controls(HIDING).isascii()
    assert escape_controls(HIDING).isprintable()
    assert escape_controls("a\nb\tc") == r"a\nb\tc"
    for plain in (
        "m0",
        "größe · 3 × 4",
        "5\u202f%",
        "مي\u200cخواهم",
        "\U0001f469\u200d\U0001f680",
        r"C:\new",
    ):
        assert escape_controls(plain) == plain


def test_a_line_stays_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell("labels: a\nrows: 7", "rows: 3\r")
    tell(STEERING, err=True)
    printed = capsys.readouterr()
    assert printed.out == "labels: a\\nrows: 7\nrows: 3\\r\n"
    assert printed.err == escape_controls(STEERING) + "\n"
    assert (
        format_warning("a\n  b\x1b", UserWarning, "x.py", 7) == "postprior: warning: a b\\x1b (UserWarning, x.py:7)\n"
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_shell_reads_what_was_quoted() -> None:
    texts = [
        "age",
        "my data; rm -rf x",
        "-x",
        "it's $HOME `id`",
        "",
        STEERING,
        "a\\'\x85\u202e8\udcff\n",
        *mixed(1, 100),
    ]
    script = "printf '%s\\0' " + " ".join(map(shell_quoted, texts))
    assert escape_controls(script) == script  # as it is shown and copied
    answer = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert [os.fsdecode(text) for text in answer.stdout.split(b"\0")[:-1]] == texts


def table(path: Path, header: str = "id,a,b,lab", huge: bool = False) -> Path:
    """Write a table with a label that contains escape sequences; its second column may be too large."""
    lines = [
        f"{row},{f'{row % 7}.5e200' if huge else row % 7 + 0.5},{row % 3 + 0.5},{(STEERING, 'well')[row % 2]}"
        for row in range(60)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]))
    return path


@pytest.mark.parametrize("name", ["my data; rm -rf x", "-x", "it's\x1b[31m"])
def test_the_commands_that_are_suggested_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The last line that `init` prints works in a shell, whatever the name of the project."""
    monkeypatch.chdir(tmp_path)
    lines = import_data([table(Path("in/t.csv"))], Path(name), Roles(id="id", label="lab"))
    assert lines[-1] == f"Go on with: postprior init PROJECT --from {shell_quoted(Path(name))}"
    project = Path(name + " project")
    command = init(project, Path(name))[-1].removeprefix("Go on with: ")
    shown = escape_controls(command).replace("dvc repro", "pwd")
    answer = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout == f"{tmp_path / project}\n"


def test_a_column_to_leave_out_is_quoted(tmp_path: Path) -> None:
    for name, expected in (("-still one;", "'-still one;'"), ("a\x1b[31m", r"$'a\x1b[31m'")):
        source = table(tmp_path / "t.csv", f"id,{name},b,lab", huge=True)
        with pytest.raises(UserError) as error:
            import_data([source], tmp_path / "data", Roles(id="id", label="lab"))
        assert str(error.value).endswith(f"leave it out (--skip {expected})")


def test_the_output_of_import_does_not_control_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape sequences in a label, a header or a file name never reach a terminal, in success or in error."""
    monkeypatch.chdir(tmp_path)
    header = 'id,"a\x1b[2J","b\nrows: 0",lab'
    table(Path("t.csv"), header)
    answer = CliRunner().invoke(app, ["import", "t.csv", "data", "--label", "lab", "--id", "id"])
    assert answer.exit_code == 0, answer.output
    assert r"numeric: a\x1b[2J (0.5 to 6.5), b\nrows: 0 (0.5 to 2.5)" in answer.stdout
    assert escape_controls(STEERING) in answer.stdout
    assert "\x1b" not in answer.stdout
    assert sum(line.startswith("rows: ") for line in answer.stdout.splitlines()) == 1
    wrong = Path("no\x1b[31m\n.csv")
    answer = CliRunner().invoke(app, ["import", str(wrong), "other"])
    assert answer.exit_code == 1
    assert answer.stderr.count("\n") == 1
    assert r"no\x1b[31m\n.csv" in answer.stderr
    answer = CliRunner().invoke(app, ["prepare", "--params", str(wrong)])
    assert answer.exit_code == 1
    assert r"no\x1b[31m\n.csv" in answer.stderr
    assert "\x1b" not in answer.stderr


def test_an_error_of_the_system_names_its_file_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        Path("gone\x1b[31m\n").read_text()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("postprior.pipelines.api.init.init", missing)
    answer = CliRunner().invoke(app, ["init", "project", "--from", "data"])
    assert answer.exit_code == 1
    assert answer.stderr == "postprior: error: gone\\x1b[31m\\n: No such file or directory\n"


def test_a_bar_shows_names_without_effect() -> None:
    code = (
        "from postprior.pipelines.progress import progress\n"
        "with progress('fit \\x1b]0;pwn\\x07 [red]', 3) as step:\n    step('[blink]\\x1b[5m')"
    )
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, env=environment)
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert r"fit \x1b]0;pwn\x07 [red]" in shown
    assert r"[blink]\x1b[5m" in shown
    assert "\x1b]0;" not in shown
    assert "\x1b[5m" not in shown


def test_a_warning_of_a_library_is_one_line() -> None:
    code = (
        "import warnings\nfrom postprior.pipelines.commands import main\n"
        "from postprior.pipelines.commands.app import app\n"
        "app.command('warn')(lambda: warnings.warn('of a\\x1b[31m\\n  and b'))\nmain()"
    )
    answer = subprocess.run([sys.executable, "-c", code, "warn"], capture_output=True, text=True, check=True)
    assert answer.stderr.startswith(r"postprior: warning: of a\x1b[31m and b (UserWarning, ")
    assert answer.stderr.count("\n") == 1


def test_a_long_error_keeps_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"found {'x' * 100_000}; correct it", err=True)
    line = capsys.readouterr().err
    assert len(line) <= LONGEST + 2
    assert line.startswith("found xxx")
    assert line.endswith("x; correct it\n")
    tell("y" * 100_000)
    assert len(capsys.readouterr().out) == 100_001  # a result is shown in full
    assert len(format_warning("z" * 100_000, UserWarning, "a.py", 3)) < LONGEST + 100
