"""Make single pages of the site: ``python docs/page.py loop notebooks/first_hour``.

Links to other pages are not checked. The pages are in ``docs/_build/pages``.
"""

import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent


def main(names: list[str]) -> int:
    """Copy the pages with the settings to a folder of their own, and make that."""
    source = DOCS / "_build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    for name in names:
        page = DOCS / f"{name}.md"
        if not page.is_file():
            print(f"docs/page.py: there is no {page}", file=sys.stderr)
            return 2
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, source / f"{name}.md")
    toctree = ["# Pages", "```{toctree}", *names, "```"]
    (source / "index.md").write_text("\n".join(toctree), encoding="utf-8")
    for folder in ("extensions", "_static", "pictures"):
        if (DOCS / folder).is_dir():
            shutil.copytree(DOCS / folder, source / folder)
    shutil.copy(DOCS / "conf.py", source)
    settings = ["-D", "extensions=myst_nb,plain_cells", "-D", "suppress_warnings=myst.xref_missing"]
    command = [sys.executable, "-m", "sphinx", "-qTW", "--keep-going", *settings]
    return subprocess.run([*command, source, DOCS / "_build" / "pages"]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
