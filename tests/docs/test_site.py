"""The documentation site: every page has its place, every public name an entry, every link leads somewhere."""

from __future__ import annotations

import ast
import html.parser
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
from support.project import REPOSITORY
from typer.testing import CliRunner

import postprior
from postprior import DENSITIES, MODELS
from postprior.pipelines.commands.app import app

DOCS = REPOSITORY / "docs"
PAGES = {path.relative_to(DOCS).as_posix()[:-3]: path.read_text() for path in sorted(DOCS.rglob("[!_]*.md"))}
PAGES = {name: text for name, text in PAGES.items() if not name.startswith("_")}
INDEX = PAGES["index"]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)#([^)\s]+)\)")


def extension(name: str) -> ModuleType:
    """A module of docs/_extensions."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "_extensions" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a Markdown page, as GitHub and MyST name them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    words = (re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in words}


def test_every_page_is_in_one_table_of_contents() -> None:
    listed = [name for block in re.findall(r"```\{toctree\}\n(.*?)```", INDEX, re.DOTALL) for name in block.split("\n")]
    entries = [name for name in listed if name and not name.startswith(":")]
    assert sorted(entries) == sorted(set(PAGES) - {"index"}), "docs/index.md has other pages than the folder"


def test_anchors_are_there() -> None:
    """Those of API entries are checked when the site is built."""
    files = {DOCS / f"{name}.md": text for name, text in PAGES.items()}
    files |= {path: path.read_text() for path in REPOSITORY.glob("*.md")}
    for path, text in files.items():
        for target, anchor in LINK.findall(text):
            page = (path.parent / target).resolve() if target else path
            if page in files and not anchor.startswith("postprior."):
                generated = page.parent.name == "reference" and page.stem in ("contributing", "security", "changelog")
                content = (REPOSITORY / f"{page.stem.upper()}.md").read_text() if generated else files[page]
                assert anchor in anchors(content), f"{path}: {target}#{anchor}"


def test_every_public_name_model_and_density_has_an_entry() -> None:
    api, models, densities = (PAGES[f"reference/{name}"] for name in ("api", "api_models", "api_densities"))
    entry = re.compile(r"^\.\. (?:auto|py:)\w+:: postprior\.([\w.]+)$", re.MULTILINE)
    entries = {text: entry.findall(text) for text in (api, models, densities)}
    named = {name for found in entries.values() for name in found if "." not in name}
    assert named == set(postprior.__all__)
    for table, text in ((MODELS, models), (DENSITIES, densities)):
        paths = {f"{table[name].__module__}.{table[name].__name__}".removeprefix("postprior.") for name in table}
        assert paths <= set(entries[text])
        assert all(f"`{name}`" in text for name in table)
    for name in set(postprior.__all__) - {"MODELS", "DENSITIES", "SOURCES"}:
        assert inspect.getdoc(getattr(postprior, name)), name


def test_python_on_the_pages_is_valid_and_imports_what_is_there() -> None:
    for name, text in PAGES.items():
        for code in re.findall(r"```(?:python|\{code-cell\} python)\n(.*?)```", text, re.DOTALL):
            for node in ast.walk(ast.parse(re.sub(r"^:tags:.*", "", code), name)):
                if isinstance(node, ast.ImportFrom) and node.module == "postprior":
                    assert {alias.name for alias in node.names} <= {*postprior.__all__, "__version__"}, name


def test_the_page_on_codes_of_other_libraries_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGES["guides/codes"]
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "guides/codes.md", "exec"), {})
    (commands,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    for line in commands.strip().splitlines():
        done = CliRunner().invoke(app, line.split("#")[0].split()[1:])
        assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == {"codes.npz", "held_out.npz", "mine", "new.npz", "twos.npz"}


def cells(name: str) -> list[str]:
    """The code of the cells of a notebook."""
    assert "file_format: mystnb" in PAGES[name]
    found = re.findall(r"```\{code-cell\} python\n(.*?)```", PAGES[name], re.DOTALL)
    return [re.sub(r"^:tags:.*\n", "", cell) for cell in found]


def test_the_tutorial_takes_forty_lines() -> None:
    lines = "\n".join(cells("tutorials/tutorial")).splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


def test_tables_take_five_lines() -> None:
    (code,) = [cell for cell in cells("tutorials/tables") if "import synthesise" in cell]
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    assert "generator.report(" in code


def test_the_overview_for_language_models_has_every_page() -> None:
    titles = {name: text.split("# ", 1)[-1].split("\n", 1)[0] for name, text in PAGES.items()}
    text = extension("overview").overview(DOCS, titles)
    assert text.startswith("# postprior\n\n> Synthetic multimodal data in two stages.\n")
    assert set(re.findall(r"\(_sources/(.*)\.md\.txt\)", text)) == set(PAGES) - {"index"}
    assert "\n## How to\n" in text
    assert "- [Tables](_sources/guides/tables.md.txt): Tables are joined by id.\n" in text


def test_pages_from_elsewhere_have_links_that_lead_to_the_same_places() -> None:
    generated = extension("generated")
    for page, file in generated.FILES.items():
        text = generated.moved((REPOSITORY / file).read_text())
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
            assert (DOCS / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_every_command_has_a_section_with_its_options() -> None:
    text = extension("generated").commands()
    assert "\n\n## train\n\n" in text
    assert "| `--shareable` | Also write results/report-shareable.html, a report without real rows. |" in text
    assert "--help" not in text


class References(html.parser.HTMLParser):
    """The targets of the links and images of a page, and the ids of its elements."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name == "id" and value:
                self.ids.add(value)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_site_builds_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    """With its notebooks, as `make docs` builds it."""
    pytest.importorskip("myst_nb", reason="make docs installs it")
    pytest.importorskip("furo", reason="make docs installs it")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-b",
        "html",
        "-W",
        "--keep-going",
        "-q",
        "-D",
        "nb_execution_mode=force",
    ]
    done = subprocess.run([*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path: References(path) for path in (tmp_path / "html").rglob("*.html")}
    assert len(pages) >= len(PAGES)
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "http", "data", "mailto"), f"{path}: {target}"
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert place.exists(), f"{path}: {target}"
            if place in pages and parts.fragment:
                assert unquote(parts.fragment) in pages[place].ids, f"{path}: {target}"
