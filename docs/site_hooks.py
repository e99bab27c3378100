"""What mkdocs does beyond its configuration: shows files and commands as pages, allows no foreign host.

In a page, `<!-- file: ../benchmarks/RESULTS.md -->` stands for that file, and `<!-- commands -->` for the
help of every command of `saliency-r1`. Pages link as in the repository; here the links are changed to lead to
other pages.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Files outside docs/ and the pages that show them.
SHOWN_AS = {
    "benchmarks/RESULTS.md": "results/details.md",
    "src/saliency_r1/nano/weights/README.md": "model-card.md",
    "README.md": "index.md",
}
# Options that every command has; the page does not repeat them.
_EVERYWHERE = {"--help", "--install-completion", "--show-completion"}
_LINK = re.compile(r"(!?\[(?:[^\]]|\](?=\())*?\])\(([^)\s]+)\)")
_FILE = re.compile(r"<!-- file: (\S+) -->")
# What makes a browser fetch something by itself; a plain link does not. The theme would fetch mermaid for
# such a block, and the facts of a repository for `repo_url`.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data|poster)=["']?(?:https?:)?//"""
    r"""|<link\b(?![^>]*\brel=["']?canonical)[^>]*?\bhref=["']?(?:https?:)?//"""
    r"""|class="mermaid"|data-md-component="source"|@import\s+(?:url\()?["']?(?:https?:)?//|url\(["']?(?:https?:)?//""",
    re.IGNORECASE,
)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the page with files and commands filled in, and with links that lead to pages of the site."""
    source = posixpath.join("docs", page.file.src_uri)
    shown = _FILE.search(markdown)
    if shown is not None:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), shown[1]))
        return links_to_pages((ROOT / path).read_text(encoding="utf-8"), path)
    if "<!-- commands -->" in markdown:
        return markdown.replace("<!-- commands -->", "\n".join(command_lines()))
    return links_to_pages(markdown, source)


def on_post_build(*, config: Any, **_: Any) -> None:
    """Refuse a site that would fetch anything from another host."""
    foreign = foreign_fetches(Path(config["site_dir"]))
    if foreign:
        raise SystemExit("the site would fetch from elsewhere:\n" + "\n".join(foreign))


def links_to_pages(markdown: str, source: str) -> str:
    """Change the relative links of a file of the repository so that they lead to pages of the site.

    Args:
        markdown: its text.
        source: its path in the repository. A link to a file that is not a page is replaced by its text.
    """
    page = SHOWN_AS.get(source, source.removeprefix("docs/"))

    def led(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or ":" in path:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if path in SHOWN_AS or path.startswith("docs/"):
            target = SHOWN_AS.get(path, path.removeprefix("docs/"))
            return f"{text}({posixpath.relpath(target, posixpath.dirname(page) or '.')}{mark}{anchor})"
        if not (ROOT / path).exists():
            raise SystemExit(f"{source}: links to {target}, and there is no {path}")
        return f"`{path}`" if text.startswith("!") else text[1:-1]

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(led, part) for part in parts)


def command_lines() -> Iterator[str]:
    """Yield the lines of a page about every command, from the command's own help."""
    import typer

    from saliency_r1.cli import app

    root = typer.main.get_command(app)
    context: Any = root.make_context("saliency-r1", [], resilient_parsing=True)
    yield from _described(root, context, level=1)
    yield str(root.epilog)


def _described(command: Any, context: Any, level: int) -> Iterator[str]:
    if level > 1:
        yield f"{'#' * level} {context.command_path}\n"
    yield "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n")) + "\n"
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            yield from _described(below, type(context)(below, info_name=name, parent=context), level + 1)
        return
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n"
    yield "| argument or option | what |\n|---|---|"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and not _EVERYWHERE.intersection(parameter.opts):
            name, what = (" ".join(text.split()) for text in record)
            yield "| `" + name + "` | " + what.replace("|", "\\|") + " |"
    yield ""


def foreign_fetches(site: Path) -> list[str]:
    """Return the places in a built site that would make a browser fetch from another host."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(site)}: {match[0][:200]}" for match in _FETCHED.finditer(text)]
    return found
