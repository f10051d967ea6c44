"""The tree can be drawn after five minutes: small rooms, plain names, nothing twice."""

import ast
from collections import Counter, defaultdict
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")
MOST_MODULES = 15
ALIKE = 3  # modules of one prefix are a room


def test_no_folder_has_more_modules_than_fit_a_page() -> None:
    counts = Counter(path.parent for path in MODULES)
    assert {str(folder): n for folder, n in counts.items() if n > MOST_MODULES} == {}


def test_no_module_repeats_its_folders_name() -> None:
    repeated = [path for path in MODULES if path.stem.lstrip("_").startswith(path.parent.name)]
    assert repeated == []


def test_modules_of_one_prefix_have_a_folder() -> None:
    prefixes: dict[tuple[Path, str], list[str]] = defaultdict(list)
    for path in MODULES:
        first, _, rest = path.stem.lstrip("_").partition("_")
        if rest:
            prefixes[path.parent, first].append(path.stem)
    assert [names for names in prefixes.values() if len(names) >= ALIKE] == []


def test_every_folder_says_what_it_holds() -> None:
    folders = {path.parent for path in MODULES if path.parent.parent != SOURCE / "hydra_plugins"}
    silent = []
    for folder in folders - {SOURCE / "hydra_plugins"}:
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        if not ast.get_docstring(ast.parse(text)):
            silent.append(folder)
    assert silent == []
