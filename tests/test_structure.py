"""The tree can be drawn after five minutes: small rooms, plain names, nothing twice."""

import ast
import re
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
    *("Problem", "REGIME_NAMES", "Split", "Status", "Stretch", "Training"),
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


UNTYPED = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[\s*str,\s*Any\s*\]")
MOST_UNTYPED = 37
FREE_FORM = {"Figure"}  # plotly's own dictionaries


def test_the_keys_of_documents_are_written_down() -> None:
    """Of a `dict[str, Any]` mypy knows no key; a name for one hides it, so none but `FREE_FORM`.

    What is left: settings of a study in its report, fields of OmegaConf's schemas, horizons by
    full key, and keyword arguments of dataclasses.
    """
    texts = [path.read_text(encoding="utf-8") for path in MODULES]
    assert sum(len(UNTYPED.findall(text)) for text in texts) <= MOST_UNTYPED
    assigned = [node for text in texts for node in ast.parse(text).body]
    names = {
        target.id
        for node in assigned
        if isinstance(node, ast.Assign | ast.AnnAssign)
        if node.value is not None and UNTYPED.match(ast.unparse(node.value))
        for target in getattr(node, "targets", None) or [node.target]  # type: ignore[union-attr]
        if isinstance(target, ast.Name)
    }
    assert names <= FREE_FORM
