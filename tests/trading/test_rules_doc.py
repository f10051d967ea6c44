"""docs/rules.md says what the code does: bits, names, severities and presets."""

from pathlib import Path

from tests.trading.builders import RISKS, configure

from ppo_workbench.trading.rules.names import RULE_NAMES, rule_sections, rule_severity

DOC = Path(__file__).parents[2] / "docs" / "rules.md"


def _rows() -> list[list[str]]:
    """Return the cells of every row of the table of rules."""
    lines = DOC.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == 8 and row[0].isdigit()]


def test_rules_document_lists_every_rule_with_its_bit_in_order() -> None:
    assert [(int(row[0]), row[1]) for row in _rows()] == list(enumerate(RULE_NAMES))


def test_rules_document_gives_default_severities() -> None:
    assert tuple(row[5] for row in _rows()) == rule_severity(configure("moderate").risk)


def test_rules_document_says_which_presets_switch_a_rule_on() -> None:
    sections = {risk: rule_sections(configure(risk).risk) for risk in RISKS}
    for row in _rows():
        letters = [risk[0].upper() for risk in RISKS if sections[risk][row[1]].enabled]
        assert row[7] == (" ".join(letters) or "none"), row[1]


def test_rules_document_names_every_parameter() -> None:
    for row in _rows():
        section = rule_sections(configure().risk)[row[1]]
        for name in vars(section):
            assert name in ("enabled", "severity") or name in row[2], (row[1], name)
