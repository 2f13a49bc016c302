#!/usr/bin/env bash
# The tables that say which test holds which promise: every rule and bar has a row, and what a row names exists.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec /usr/bin/python3 - <<'PYTHON'
import re
import sys
from pathlib import Path


def names(text):
    """"L1-3 W1" -> L1 L2 L3 W1"""
    found = []
    for part in text.split():
        letter, first, last = re.fullmatch(r"([A-Z])(\d+)(?:-(\d+))?", part).groups()
        found += [f"{letter}{n}" for n in range(int(first), int(last or first) + 1)]
    return found


# The rules of the Kubernetes reference that must have a row, in the order of the table; others may follow.
RULES = names("L1-8 W1-15 D1-8 R1-6 A1-9 P1-8 E1-8 V1-5 X1-10 C1-19")
CHART_RULES = names("H1-22 S1-20")
# Bars of the security reference; S40 waits for several servers on a port. Pains of other proxies' users.
BARS = [b for b in names("S1-58 P1-5 P8-10") if b != "S40"]
TESTS = ["tests/unit", "tests/integration", "tests/kube", "tests/chart", "tests/fuzz"]
CODE = ["controller", "controller/kube", "proxy/base", "proxy/spec", "proxy/run", "proxy/relay", "proxy/wire", "proxy/admin",
        "tests/integration/support"]
failed = False


def complain(text):
    global failed
    failed = True
    print(text)


def find(name, folders):
    found = [Path(f, name) for f in folders if Path(f, name).is_file()]
    return found or ([Path("tests", name)] if Path("tests", name).is_file() else [])


def has_test(file, name):
    text = file.read_text()
    if file.suffix == ".py":
        return re.search(rf"^ *def {name}\(", text, re.M)
    if file.suffix == ".h":
        return re.search(rf"\b{name}\(", text)
    return re.search(rf"^(?:static )?void {name}\(void \*\*", text, re.M) and len(re.findall(rf"\b{name}\b", text)) > 1


def check_tests(where, cell):
    """The tests of a cell: `file::name`, `::name` of the file before it, `file`."""
    file, count = None, 0
    for file_name, name in re.findall(r"`([\w/]+\.(?:py|c|h))?(?:::(\w+))?`", cell):
        if file_name:
            found = find(file_name, TESTS)
            file = found[0] if len(found) == 1 else None
            if file is None:
                complain(f"{where}: {len(found)} files are named {file_name}")
        if not file_name and not name:
            continue
        count += 1
        if name and not file and not file_name:
            complain(f"{where}: ::{name} stands behind no file")
        elif name and file and not has_test(file, name):
            complain(f"{where}: {file} has no test {name}")
    return count


def check_code(where, cell):
    """The code of a cell: `file:function`, then `function` of the same file; `file`."""
    text = ""
    for file_name, name, alone in re.findall(r"`(?:([\w/]+\.[ch])(?::(\w+))?|(\w+))`", cell):
        if file_name:
            found = find(file_name, CODE)
            text = "".join(f.read_text() for f in found)
            if not found:
                complain(f"{where}: no file is named {file_name}")
        if (name or alone) and text and not re.search(rf"\b{name or alone}\b", text):
            complain(f"{where}: no {name or alone} where it should be")


def check_files(where, cell):
    """The files of the chart, and of the whole repository, that a cell names."""
    for name in re.findall(r"`((?:templates|files|deploy)/[\w./-]+|values[\w.]+)`", cell):
        if not Path("charts/tidegate", name).is_file() and not Path(name).is_file():
            complain(f"{where}: there is no {name}")


def table(path, first):
    """[(line, cells)] of the table that begins with this cell."""
    rows, heads = [], 0
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.startswith("| "):
            continue
        cells = [c.strip() for c in line.strip("| ").split(" | ")] if line.count(" | ") else [line]
        heads += cells[0] == first
        if heads and cells[0] != first:
            rows.append((number, cells))
    if heads != 1:
        complain(f"{path}: the table's head stands {heads} times")
    seen = set()
    for number, cells in rows:
        if cells[0] in seen:
            complain(f"{path}:{number}: {cells[0]} has a row already")
        seen.add(cells[0])
    return rows


def check_named(path, rows, wanted):
    named = [n for _, cells in rows for n in re.findall(r"^[A-Z]\d+|(?<=, )[A-Z]\d+(?=[ ,]|$)", cells[0])]
    for name in wanted:
        if name not in named:
            complain(f"{path}: {name} has no row")
    places = [wanted.index(n) for n in named if n in wanted]
    for before, after in zip(places, places[1:]):
        if after < before:
            complain(f"{path}: {wanted[after]} stands behind {wanted[before]}")


for path, wanted, check in (("tests/kube/RULES.md", RULES, check_code), ("tests/chart/RULES.md", CHART_RULES, check_files)):
    rows = table(path, "rule")
    check_named(path, rows, wanted)
    for number, cells in rows:
        where = f"{path}:{number}: {cells[0]}"
        check(where, cells[1])
        # Without a test a row must say why: in words, of which code is none.
        if not check_tests(where, "".join(cells[2:])) and len(re.sub(r"`[^`]*`", "", cells[1]).split()) < 4:
            complain(f"{where}: names neither a test nor why there is none")

path = "tests/README.md"
rows = table(path, "bar")
check_named(path, rows, BARS)
for number, cells in rows:
    where = f"{path}:{number}: {cells[0]}"
    if len(cells) < 3 or not check_tests(where, cells[1]):
        complain(f"{where}: names no test")
sys.exit(failed)
PYTHON
