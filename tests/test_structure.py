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


# Public names that two modules define: a message and its choice, a task and what carries it out.
KNOWN_TWICE = {
    *("CONFIDENCE", "DRAWDOWN", "Draws", "Fill", "Gate", "Layout", "MODEL", "Name"),
    *("Problem", "REGIME_NAMES", "Split", "Status", "Stretch", "Table", "Training"),
    *("analyse", "audited", "backtest", "check_files", "collect", "cut", "deliver_records"),
    *("describe", "equity_figure", "golden_vectors", "headline", "missing", "plain"),
    *("refuse", "report", "round_trips", "scaled", "stressed", "verify"),
}


def _public(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {name.id for name in node.targets if isinstance(name, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def test_public_names_are_defined_once() -> None:
    package = [path for path in MODULES if not path.stem.startswith("_")]
    counts = Counter(name for path in package for name in _public(path))
    twice = {name for name, count in counts.items() if count > 1}
    assert twice == KNOWN_TWICE
