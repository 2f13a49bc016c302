"""The fenced blocks of a page in Markdown.

Every block says what it is: `sh` is typed by the reader, line after line, and runs as it stands; `output` is what the block
before it prints at last; `yaml` is a file; `text` is a picture."""

import re
from dataclasses import dataclass

LANGUAGES = {"sh", "output", "yaml", "text"}


@dataclass
class Block:
    heading: str
    language: str
    text: str
    line: int

    def __str__(self):
        return f"{self.line}: {' '.join(self.text.split())[:50]}"


def blocks_of(page):
    found, heading, fence = [], "", None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if fence is not None:
            if line == "```":
                found.append(Block(heading, fence[0], "\n".join(fence[2:]) + "\n", fence[1]))
                fence = None
            else:
                fence.append(line)
        elif line.startswith("```"):
            fence = [line[3:].strip(), number]
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    assert fence is None, f"{page}:{fence[1]}: the block has no end"
    return found


def commands_of(text):
    """The commands of a block, without comments; a here-document stays with its command."""
    commands, end = [], None
    for line in text.splitlines():
        if end is not None or (commands and commands[-1].endswith("\\")) or _open_quote(commands):
            commands[-1] += "\n" + line
            end = None if line == end else end
            continue
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if line:
            commands.append(line)
            here = re.search(r"<<'?(\w+)'?", line)
            end = here and here[1]
    return commands


def _open_quote(commands):
    return bool(commands) and commands[-1].count("'") % 2 == 1


def anchors_of(page):
    """What #... can follow the page's name in a link."""
    heads = (line.lstrip("# ") for line in page.read_text().splitlines() if re.match(r"#+ ", line))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
