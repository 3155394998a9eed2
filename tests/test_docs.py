"""What README.md and docs/ show is run: commands, Python, definitions, JSON; and their links lead somewhere.

Every page has a home of its own, a copy of one into which the demo was loaded, and its blocks run in their order:

    ```console   lines with `$ ` go to one shell per page, in a folder that has `manage.py` and `examples`; a line that
                 ends in a backslash goes on, and `# exit 1` at the end says that the command fails so. What follows
                 is what it prints on both streams: `...` stands for anything in a line, alone for any lines.
    ```python    runs in one process per page, Django set up; with `>>>` as a doctest (`...` as above).
    ```yaml      is YAML, and planned as a definitions file when it begins with a key of one (unless it has a file name:
                 then a command of the page plans or applies it).
    ```json      is JSON.

Comments before a block, which no reader sees: `<!-- file: shop.yaml -->` also writes the block into the page's
folder; `<!-- not run: why -->` leaves it alone, and `<!-- needs: spark -->` does so where there is no Spark.
`<!-- home: empty -->` anywhere gives a page a home without a database. `$FEATUREHUB_API_KEY` holds a key that reads and
writes. Where a command asks 127.0.0.1:8000, a web server is started for the page on a free port, which stands in for
that one. `text`, `mermaid`, `sql` and `hex` blocks are not run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
import yaml
from django.contrib.admindocs.views import simplify_regex
from pydantic import BaseModel

from catalog import urls as catalog_urls
from catalog.definitions import document
from engine.errors import FeaturehubError
from engine.expressions import FUNCTIONS
from featurehub import private_redis
from featurehub.environment import PROJECT
from ingestion import urls as ingestion_urls
from serving import urls as serving_urls
from tests import spark

DOCS = PROJECT / "docs"
README = PROJECT / "README.md"
PAGES = sorted([*DOCS.rglob("*.md"), *([README] if README.exists() else [])])
LANGUAGES = {"console", "python", "yaml", "json", "text", "mermaid", "sql", "hex"}
RUN = {"console", "python", "yaml", "json"}
DEFINITIONS = ("owners:", "entities:", "feature_groups:", "feature_services:")
BASE = "127.0.0.1:8000"
END = "=== end of command"

BLOCK = re.compile(r"((?:^<!--[^\n]*-->\n+)*)^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

#: Makes the home that pages get copies of, and prints an API key.
MAKE_HOME = """
import django
django.setup()
from django.core.management import call_command
from catalog.access import SCOPES, create_key
call_command("migrate", verbosity=0)
call_command("demo")
print(create_key(name="docs", scopes=SCOPES)[1])
"""
#: Answers each line of input, a JSON text of Python, with a JSON text of what went wrong.
PYTHON = """
import contextlib, doctest, io, json, sys, traceback
import django
django.setup()
names, answers = {"__name__": "__docs__"}, sys.stdout
flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
for line in sys.stdin:
    code, said = json.loads(line), io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            if ">>> " in code:
                test = doctest.DocTestParser().get_doctest(code, names, "page", None, 0)
                doctest.DocTestRunner(optionflags=flags, verbose=False).run(test, out=said.write, clear_globs=False)
                names.update(test.globs)
            else:
                exec(compile(code, "page", "exec"), names)
        except Exception:
            said.write(traceback.format_exc())
    print(json.dumps(said.getvalue()), file=answers, flush=True)
"""
PLAN = """
from catalog.definitions import plan
plan([{path!r}])
"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, with the comments before it."""

    line: int
    language: str
    text: str
    comments: str

    @cached_property
    def file(self) -> str:
        """The name that the block is kept under, or nothing."""
        found = re.search(r"<!-- file: ([\w.-]+) -->", self.comments)
        return found[1] if found else ""

    @property
    def is_run(self) -> bool:
        if "<!-- needs: spark -->" in self.comments and spark.missing():
            return False
        return self.language in RUN and "<!-- not run: " not in self.comments

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command with what the page says that it prints."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", part)
            assert command is not None
            yield command[0].rstrip("\n"), part[command.end() :]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(text.count("\n", 0, found.start(2)) + 1, found[2].partition(" ")[0], found[3], found[1])
        for found in BLOCK.finditer(text)
    ]


def test_prompts_continued_lines_and_outputs_are_told_apart() -> None:
    block = Block(1, "console", "$ first \\\n  --more\none\ntwo\n$ second\n", "")
    assert list(block.commands()) == [("first \\\n  --more", "one\ntwo\n"), ("second", "")]


@pytest.mark.parametrize(
    ("said", "printed", "fits"),
    [
        ("a ... c\n", "a b c\n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a b\n", "a c\n", False),
        ("", "a\n", False),
        ("1.5\n", "1x5\n", False),
    ],
)
def test_three_dots_stand_for_anything_and_all_else_for_itself(said: str, printed: str, fits: bool) -> None:
    assert is_as_documented(printed, said) == fits


def is_as_documented(printed: str, said: str) -> bool:
    lines = [
        r"(?:[^\n]*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", r"[^\n]*") + r"\n"
        for line in trimmed(said)
    ]
    return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in trimmed(printed))) is not None


def trimmed(text: str) -> list[str]:
    """The lines without white space at their ends, and without empty ones at the end."""
    return [line.rstrip() for line in text.rstrip().split("\n")] if text.strip() else []


@dataclass(frozen=True)
class Template:
    """A home with the demo's data, its Redis stopped, and a key that reads and writes there."""

    home: Path
    key: str


def variables(home: Path) -> dict[str, str]:
    """A clean environment of the embedded stack in `home`, as a developer's shell has it with the venv active."""
    kept = {name: text for name, text in os.environ.items() if name in {"HOME", "JAVA_HOME", "LANG", "TMPDIR"}}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "FEATUREHUB_HOME": str(home), "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}


def of_the_project(home: Path) -> dict[str, str]:
    return {**variables(home), "PYTHONPATH": str(PROJECT), "DJANGO_SETTINGS_MODULE": "featurehub.settings"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    home = tmp_path_factory.mktemp("docs") / "home"
    home.mkdir()
    with private_redis.running(home):
        made = subprocess.run(
            [sys.executable, "-c", MAKE_HOME], env=of_the_project(home), capture_output=True, text=True, check=False
        )
    assert made.returncode == 0, made.stderr
    return Template(home, made.stdout.splitlines()[-1])


@dataclass
class Session:
    """What the blocks of one page run in; everything starts when it is first needed and ends with the page."""

    home: Path
    folder: Path
    key: str
    running: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def shell(self) -> subprocess.Popen[str]:
        (self.folder / "manage.py").symlink_to(PROJECT / "manage.py")
        (self.folder / "examples").symlink_to(PROJECT / "examples")
        settings = self.folder.parent / "spark"
        settings.mkdir()
        environment = variables(self.home) | spark.of_commands(settings)
        started = self._start(["/bin/bash", "--noprofile", "--norc"], environment, stderr=subprocess.STDOUT)
        # Not exported: a FEATUREHUB_ variable that is no setting stops the hub's commands.
        self._tell(started, f"FEATUREHUB_API_KEY={self.key}\n")
        return started

    @cached_property
    def python(self) -> subprocess.Popen[str]:
        return self._start([sys.executable, "-c", PYTHON], of_the_project(self.home))

    @cached_property
    def port(self) -> int:
        """The port of a web server that was started for this page."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        options = ["--interface", "rsgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws"]
        command = [sys.executable, "-m", "granian", *options, "featurehub.rsgi:application"]
        server = self._start(command, of_the_project(self.home), stderr=subprocess.STDOUT)
        assert server.stdout is not None
        said = ""
        for line in server.stdout:
            said += line
            if "Started worker" in line:  # it listens since before, and holds what comes until the application is there
                return port
        raise AssertionError(f"The web server did not start:\n{said}")

    def _start(self, command: list[str], env: dict[str, str], *, stderr: int | None = None) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            command, cwd=self.folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        self.running.callback(stop, started)
        return started

    def _tell(self, process: subprocess.Popen[str], text: str) -> None:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.flush()

    def command(self, command: str) -> tuple[str, int]:
        """Run one command in the page's shell; what it printed, and its exit status."""
        if BASE in command:
            command = command.replace(BASE, f"127.0.0.1:{self.port}")
        self._tell(self.shell, f"{{ {command}\n}} </dev/null\nprintf '\\n{END} %s\\n' $?\n")
        printed = ""
        assert self.shell.stdout is not None
        for line in self.shell.stdout:
            if line.startswith(END):
                served = f"127.0.0.1:{self.port}" if "port" in self.__dict__ else BASE
                return printed.replace(served, BASE), int(line.removeprefix(END))
            printed += line
        raise AssertionError(f"The shell ended in {command}:\n{printed}")

    def code(self, text: str) -> str:
        """Run Python in the page's process; what it printed, which is its failures."""
        self._tell(self.python, json.dumps(text) + "\n")
        assert self.python.stdout is not None
        return str(json.loads(self.python.stdout.readline()))


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, template: Template, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[list[str]]]]:
    """What is wrong with each page that is to be tested; pages are run two at a time."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    pages = [item.callspec.params["page"] for item in tests if item.function is test_page_shows_what_happens]
    with ThreadPoolExecutor(2) as pool:
        yield {page: pool.submit(run, page, template, tmp_path_factory.mktemp("page")) for page in pages}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.is_run for block in blocks_of(page))],
    ids=lambda page: str(page.relative_to(PROJECT)),
)
def test_page_shows_what_happens(page: Path, found: dict[Path, Future[list[str]]]) -> None:
    wrong = found[page].result()
    assert not wrong, "\n\n".join([f"{page.relative_to(PROJECT)}:", *wrong])


def run(page: Path, template: Template, folder: Path) -> list[str]:
    """Run the blocks of a page in order, below `folder`; what is not as the page says."""
    session = Session(folder / "home", folder / "work", template.key)
    session.folder.mkdir()
    if "<!-- home: empty -->" in page.read_text():
        session.home.mkdir()
    else:
        shutil.copytree(template.home, session.home)
    with session.running:
        # Held for the whole page, so that no command has to start it.
        session.running.enter_context(private_redis.running(session.home))
        return [problem for block in blocks_of(page) for problem in problems_of(block, session)]


def problems_of(block: Block, session: Session) -> Iterator[str]:
    """What of a block is not as it says, each with the block's line."""
    if block.file:
        (session.folder / block.file).write_text(block.text)
    if not block.is_run:
        return
    if block.language == "console":
        yield from (f"line {block.line}: {problem}" for problem in problems_of_commands(block, session))
    elif block.language == "python":
        if failed := session.code(block.text):
            yield f"line {block.line}: {failed}"
    elif problem := problem_of_document(block, session):
        yield f"line {block.line}: {problem}"


def problems_of_commands(block: Block, session: Session) -> Iterator[str]:
    for command, said in block.commands():
        printed, status = session.command(command)
        wanted = re.search(r"# exit (\d+)$", command)
        if status != (int(wanted[1]) if wanted else 0):
            yield f"{command}\nexits with {status}:\n{printed}"
        elif not is_as_documented(printed, said):
            yield f"{command}\nprints\n{printed}\nand not\n{said}"


def problem_of_document(block: Block, session: Session) -> str:
    try:
        json.loads(block.text) if block.language == "json" else yaml.safe_load(block.text)
    except (ValueError, yaml.YAMLError) as error:
        return str(error)
    if block.language == "json" or block.file or not block.text.startswith(DEFINITIONS):
        return ""
    path = session.folder / "planned.yaml"
    path.write_text(block.text)
    return session.code(PLAN.format(path=str(path)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_block_is_of_a_language_that_this_file_knows(page: Path) -> None:
    fences = re.findall(r"^ *```", page.read_text(), re.MULTILINE)
    blocks = blocks_of(page)
    assert len(fences) == 2 * len(blocks)
    assert {block.language for block in blocks} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in links_of(page):
        file, _, heading = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        if heading:
            assert heading in {anchor(text) for text in HEADING.findall(without_blocks(found))}, target


def test_every_promise_names_a_test_that_is_there() -> None:
    promises = re.findall(r"\[([^\]]+)\]\((tests/[^)]+\.py)\)", (PROJECT / "README.md").read_text())
    missing = [
        f"{path}: {name}"
        for name, path in promises
        if f"\ndef test_{name.replace(' ', '_')}(" not in (PROJECT / path).read_text()
    ]
    assert (len(promises) > 20, missing) == (True, [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_definitions_file_of_a_page_is_planned_or_applied_there(page: Path) -> None:
    blocks = blocks_of(page)
    commands = " ".join(block.text for block in blocks if block.language == "console" and block.is_run)
    for block in blocks:
        if block.file and block.text.startswith(DEFINITIONS):
            assert re.search(rf"manage\.py (plan|apply) {re.escape(block.file)}\b", commands), block.file


def test_the_index_links_every_page() -> None:
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in links_of(DOCS / "README.md")}
    assert {page for page in DOCS.rglob("*.md") if page != DOCS / "README.md"} <= linked


def links_of(page: Path) -> list[str]:
    """The links of a page that stay within the project."""
    return [target for target in LINK.findall(without_blocks(page)) if "://" not in target]


def without_blocks(page: Path) -> str:
    return BLOCK.sub("", page.read_text())


def anchor(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def test_every_function_of_expressions_is_in_the_guide_and_no_other() -> None:
    table = (DOCS / "guide-expressions.md").read_text().partition("## Functions")[2].partition("```")[0]
    assert set(re.findall(r"`([A-Z0-9_]+)\(", table)) == set(FUNCTIONS)


def test_every_key_of_a_definitions_file_is_in_the_guide() -> None:
    guide = (DOCS / "guide-definitions.md").read_text()
    keys = {key for model in definitions_of(document.Definition) for key in model.model_fields}
    assert keys - set(re.findall(r"[a-z_]+", guide)) == set()
    tables = "\n".join(line for line in guide.splitlines() if line.startswith("|"))
    assert keys - set(re.findall(r"`([a-z_]+)`", tables)) == {*document.Document.model_fields} - {"features"} | {
        "description",  # of everything, so told above the tables
        "owner",
        "tags",
        "kind",
    }


def definitions_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for found in model.__subclasses__():
        if found.__module__ == document.__name__:
            yield found
        yield from definitions_of(found)


def test_every_error_is_in_the_guide_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", (DOCS / "guide-serving.md").read_text(), re.MULTILINE)
    assert {(int(status), code) for status, code in rows} == {
        (error.status, error.code) for error in errors_of(FeaturehubError)
    }


def errors_of(error: type[FeaturehubError]) -> Iterator[type[FeaturehubError]]:
    for found in error.__subclasses__():
        yield found
        yield from errors_of(found)


def test_every_route_of_the_api_is_in_a_guide_and_no_other() -> None:
    guides = "".join((DOCS / page).read_text() for page in ("guide-serving.md", "guide-registry.md"))
    rows = re.findall(r"^\| `[A-Z]+ (/[^`]+)` \|", guides, re.MULTILINE)
    patterns = [*catalog_urls.urlpatterns, *ingestion_urls.urlpatterns, *serving_urls.urlpatterns]
    api = [pattern for pattern in patterns if hasattr(pattern.callback, "cls")]  # what DRF answers; pages are no API
    assert set(rows) == {simplify_regex(str(pattern.pattern)).rstrip("/") for pattern in api}


def test_every_decision_says_what_a_decision_has_to() -> None:
    decisions = sorted((DOCS / "adr").glob("*.md"))
    assert len(decisions) >= 6
    for number, page in enumerate(decisions, start=1):
        assert page.name.startswith(f"{number:04}-")
        text = page.read_text()
        assert re.match(rf"# {number}\. .+\n\nStatus: (accepted|superseded by .+)\.\n", text), page.name
        assert [*re.findall(r"^## (.+)$", text, re.MULTILINE)] == ["Context", "Decision", "Consequences"], page.name
