# SPDX-License-Identifier: MPL-2.0
"""Runs the fenced examples of a Markdown page.

* ``json NAME`` (any language and a file name): the block becomes that file.
* ``console``: lines that begin with ``$ `` are commands (``>`` continues one), the lines after them what they print.
  ``…`` stands for any text within a line, a line of nothing else for any number of lines.
* ``python``: runs with what earlier blocks of the page defined.

Other blocks are for readers only. The commands of one block share a shell, all blocks of a page a folder.
"""

import pathlib
import re
import subprocess
from dataclasses import dataclass

MARK = "--- end of command "


@dataclass
class Block:
    line: int
    language: str
    name: str
    text: str
    heading: str


def blocks(page):
    """All fenced blocks of a page, with the heading each one stands under."""
    found, heading, start = [], "", None
    for number, line in enumerate(pathlib.Path(page).read_text().splitlines(), 1):
        if start is None and line.startswith("## "):
            heading = line[3:].strip()
        if not line.startswith("```"):
            continue
        if start is None:
            start = (number, line[3:].strip())
            continue
        first, info = start
        language, _, name = info.partition(" ")
        text = pathlib.Path(page).read_text().splitlines()[first : number - 1]
        found.append(Block(first, language, name, "\n".join(text) + "\n", heading))
        start = None
    assert start is None, f"line {start[0]}: the block is not closed"
    return found


def commands(text):
    """The commands of a console block with the output that is expected of each."""
    steps = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append([line[2:], []])
        elif line.startswith("> ") and steps and not steps[-1][1]:
            steps[-1][0] += "\n" + line[2:]
        else:
            assert steps, f"output before any command: {line}"
            steps[-1][1].append(line)
    return steps


def matches(expected, actual):
    """Whether output is as expected, with ``…`` for what differs from run to run."""
    pattern = ""
    for line in expected:
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.split("…")) + "\n"
    text = "".join(line + "\n" for line in actual)
    return re.fullmatch(pattern, text) is not None


class Runner:
    def __init__(self, folder, environment):
        self.folder = folder
        self.environment = environment
        self.names = {}

    def run(self, block):
        if block.name:
            (self.folder / block.name).write_text(block.text)
        elif block.language == "console":
            self.console(block)
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, "<example>", "exec"), self.names)

    def console(self, block):
        steps = commands(block.text)
        script = "".join(f"{command}\necho; echo '{MARK}'$?\n" for command, _ in steps)
        done = subprocess.run(
            ["bash"],
            input=script,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        outputs = re.split(rf"\n?^{re.escape(MARK)}\d+\n", done.stdout, flags=re.MULTILINE)
        for (command, expected), output in zip(steps, outputs, strict=False):
            actual = output.rstrip("\n").splitlines()
            assert matches(expected, actual), (
                f"line {block.line}: `{command}` printed\n" + "\n".join(actual) + "\ninstead of\n" + "\n".join(expected)
            )
        assert len(outputs) == len(steps) + 1, f"line {block.line}: the shell stopped early:\n{done.stdout}"
