"""Find turned phrases in what people read: idioms and word order that a reader has to read twice.

By hand, on files or folders::

    python tests/support/plain_words.py PATH…          # turned phrases, with the reason
    python tests/support/plain_words.py --long PATH…   # also sentences of more than 25 words

It reads the prose of Markdown and notebooks, the text of HTML templates, the strings of page scripts, and
the strings of Python that are not docstrings. The reference pages have the docstrings that people read.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LONGEST_SENTENCE = 25
"""Words."""
FOLDERS_LEFT_OUT = {"__pycache__", "node_modules"}
_SENTENCE = re.compile(r"(?:(?!\n\s*\n|\n\s*(?:[-*#|]|\d+\.) |[.!?][*_)\"']*(?:\s|$)|\|)[\s\S])+")
SLOT = "…"
"""Stands for code in prose and for values in strings."""


@dataclass(frozen=True)
class Turn:
    """A phrase that texts must not use."""

    pattern: str
    """Regular expression; a space stands for any white space, and letters for both cases."""
    reason: str
    example: str
    """A text with this phrase."""

    def compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern.replace(" ", r"\s+"), re.IGNORECASE | re.MULTILINE)


PEOPLE = "People are you, they or their."
NAME_IT = "Name the thing."
OWNER = "Say owned by another user, or name the owner."
DIRECT = "Word order of another language: say it directly."
FIELD = "Use the word of the field: "
IDIOM = "Idiom: use a plain verb."

# After a noun in the possessive: no noun follows.
_END = (
    r"(?=\s*(?:[.,;:!?)|\"]|$"
    r"|\s(?:and|or|is|are|was|were|that|which|to|in|on|at|by|for|with|as|but|from|has)\b))"
)

TURNS = (
    # People.
    Turn(r"\b(?:he|him|his|himself|she|her|hers|herself)\b", PEOPLE, "all of his servers"),
    Turn(r"\bwho(?:m|so)?ever\b", "Say anyone who, or name the user.", "Whoever is in the way"),
    Turn(r"\b(?:for|to|by|of|from|with) who\b", "Say users who.", "for who comes through the proxy"),
    Turn(r"\bwho waits?\b", "Say waiting requests, or everyone waiting.", "everybody who waits"),
    Turn(r"\b(?:nobody|somebody|someone|anybody|anyone|everybody|everyone) else's\b", OWNER, "nobody else's"),
    Turn(r"\b(?:nobody|somebody|anybody|everybody)'s\b", OWNER, "in anybody's way"),
    Turn(r"\banother one's\b", OWNER, "which is another one's"),
    Turn(
        r"\b(?:(?:mov|let|ask|disturb|preempt|tell|stop|hold|delay|reach)(?:e?s|ed)?"
        r"|(?:go|goes|belong(?:s|ed)?) to) nobody\b",
        "Negate the verb: does not move any request.",
        "Trouble moves nobody",
    ),
    Turn(r"\bsingle people\b", "Say individual users.", "`users` those of single people"),
    # Negation and possession.
    Turn(
        r"(?<!there\s)\b(?:is|are|was|were|be) none\b",
        "Say is not one, or has no ….",
        "is none of the accepted",
    ),
    Turn(
        r"(?<!there\s)\b(?:is|are|was|were|be) no"
        r" (?!(?:longer|more|less|later|earlier|larger|other)\b)\w+",
        "Say is not a ….",
        "the file is no database",
    ),
    Turn(
        r"\bthat are none\b|\band is none\b|\bnone of (?:ours|theirs|its)\b",
        "Say is not one.",
        "a node none of ours",
    ),
    Turn(
        r"\bof (?:ours|yours|theirs|mine)\b",
        "Say our, your or their, or name the owner.",
        "a reservation of yours",
    ),
    Turn(
        r"\bof (?:the|its|their|an?) (?:\w+ )?\w+'s" + _END,
        "A double genitive: say of the Hub, or the Hub's page.",
        "a defect of the Hub's, or a stop",
    ),
    Turn(
        r"\b(?:is|are|was|were|be|not|only) (?:an?|the|its) \w+'s(?=\s*[.,;:)|])",
        "Say belongs to, or put the owner before the thing.",
        "The exit status is the command's.",
    ),
    Turn(r"\b(?:is|are|was|were) not there\b", "Say is missing, or does not exist.", "one that is not there"),
    Turn(r"\bthat (?:is|are|was|were) there\b|\bis there already\b", "Say exists.", "a folder that is there"),
    Turn(r"\bhow-?man(?:y|ie)[- ]?th\b|\bthe how-", "Say number, position or rank.", "the how-manieth start"),
    Turn(r"\bso (?:it|they) (?:was|were)\b", "Say what happened.", "So it was, without a reason"),
    Turn(
        r"\bsay(?:s|ing)? nothing of\b|\bknows? nothing of\b",
        "Say does not mention.",
        "what it says nothing of",
    ),
    Turn(
        r"\bthe ones? (?:that|which|of)\b|\bone of which\b|\bthose of\b", NAME_IT, "the one that login makes"
    ),
    Turn(r"\bthe others? one\b|\bthe other ones\b", NAME_IT, "the other one is ended"),
    Turn(
        r"(?:^|[.;:,(] )(?:Should (?:it|they|the|a|an|this|that|there) (?![^.\n]*\?)|Were the\b)",
        "Say if.",
        "Should it come back, undrain it.",
    ),
    Turn(
        r"\b(?:is|are|was|were) to (?:be|have|go)\b", "Say must, should or will.", "and node-2 is to have it"
    ),
    Turn(r"\bis without\b", "Say has no ….", "a node that is without GPUs"),
    Turn(r"\bso many whole\b", "Say number of.", "So many whole nodes"),
    Turn(r"\bleft out:", "In help, say Default: ….", "Left out: the configured address."),
    Turn(
        r"\bno (?:text|number|list|object)\b(?= (?:that|is))",
        "Say is not a ….",
        "holds no text that is valid",
    ),
    Turn(
        r"\bholds what\b|\bof what (?:is|was|has|runs)\b|\banswered what\b",
        NAME_IT,
        "The request holds what is no text",
    ),
    Turn(
        r"\bas told\b|\btold so\b|\btold to end\b",
        "Say who asked, or what the message says.",
        "ended as told",
    ),
    Turn(r"\bin words\b", "Say with a message.", "it is refused in words"),
    Turn(r"\b(?:own|kubelet's|AWS's) words\b", "Say message, or output.", "its own words follow"),
    Turn(r"\ba word of\b|\bwithout a word\b", "Say without a message.", "without a word of the spawner's"),
    # Words of the field.
    Turn(r"\bpreten(?:d|ds|ded|ding)\b", FIELD + "simulated.", "two pretended GPUs"),
    Turn(r"\banew\b", FIELD + "again, restart, retry, re-plan.", "placed anew"),
    Turn(r"\bmend(?:s|ed|ing)?\b", FIELD + "fix.", "Mended: a server that"),
    Turn(
        r"\b(?:breaks?|broken?|breaking|keeps?|voids?) (?:an?|no|any|somebody's|every|the) promises?\b"
        r"|\bpromises? (?:made|that|is|are|to)\b|\bis promised\b|\bmoved promise\b",
        FIELD + "guaranteed start.",
        "that breaks no promise made to a user",
    ),
    Turn(r"\btime-outs?\b|\btimes-out\b", FIELD + "timeout.", "the time-out is over"),
    Turn(r"\blog-ins?\b", FIELD + "login.", "the log-in failed"),
    Turn(r"\bback-ups?\b", FIELD + "backup.", "put it back from a back-up"),
    Turn(r"\b(?:is|are|was|were|be|been) minted\b|\bmint another\b", FIELD + "create.", "mint another one"),
    Turn(r"\b(?:next|place \d+|\w+|…) in line\b", FIELD + "queue.", "you are next in line"),
    Turn(
        r"\bplaces planned\b|\b(?:queue|keeps?) (?:and |their )?places\b|\bmany places move\b",
        FIELD + "planned start, queue.",
        "keeps the places planned on it",
    ),
    # Idioms.
    Turn(r"\bin vain\b", IDIOM, "waits in vain"),
    Turn(
        r"\b(?:give|gives|given|giving|gave) (?:it |them |the start )?up\b",
        "Say stop, cancel or time out.",
        "it gives up",
    ),
    Turn(r"\b(?:upon|unto|amongst|whilst|lest|shall)\b", "Archaic.", "depends upon it"),
    Turn(r"\b(?:where|there|here)(?:of|upon|unto)\b|\bwhere(?:in|by|to)\b", "Archaic.", "the part whereof"),
    Turn(r"\bbesides?\b", "Say next to, with, or also.", "JupyterLab runs beside sshd"),
    Turn(
        r"\b(?:leads?|led) (?:to|there|nowhere|somewhere|into)\b",
        "Say connects to, routes to, causes.",
        "a name leads to it",
    ),
    Turn(
        r"\bhand(?:s|ed|ing)? (?:out|on|over)\b",
        "Say issue, give, pass or forward.",
        "ids that were handed out",
    ),
    Turn(r"\bas long as it takes\b", "Say how long, or until what.", "waits as long as it takes"),
    Turn(r"\bfor good\b", "Say permanently.", "Is node-1 gone for good?"),
    Turn(r"\ball the same\b", "Say anyway, or still.", "is ready all the same"),
    Turn(r"\bat present\b|\bjust now\b|\bright then\b", "Say now, or name the time.", "not known at present"),
    Turn(r"\bcan(?:not|'t)? be learnt\b|\bto be learnt\b", "Say is unknown.", "nothing can be learnt of it"),
    Turn(r"\bheard of\b|\bheard from\b", "Say does not report.", "nothing is heard of node-1"),
    Turn(
        r"\bseen (?:up|gone|to be)\b|\bis seen\b",
        "Say reports, or is observed as.",
        "as soon as it is seen up",
    ),
    Turn(r"\bto be gone\b|\bhas gone\b", "Say ended, stopped, or was removed.", "was to be gone by 14:10"),
    Turn(
        r"\brun(?:s|ning)? on(?=\s*(?:[.,;:)|]|$|\s(?:to|until|and|while)\b))",
        "Say keeps running.",
        "servers run on.",
    ),
    Turn(r"\bliv(?:e|es|ed) on\b", "Say keeps running.", "the service lived on"),
    Turn(r"\bgo(?:es)? (?:on|ahead) (?:with|there|from)\b", "Say continue.", "go on with the extension"),
    Turn(r"\bgo(?:es)? before\b", "Say takes precedence.", "`GPUDEV_URL` goes before the file"),
    Turn(r"\b(?:lies|lie|lay) (?:in|below|under|there|where)\b", "Say is in.", "the log lies in the folder"),
    Turn(r"\bwants\b", "Say needs, or requires.", "--watch wants a terminal"),
    Turn(r"\b(?:will|would) do\b(?! \w)", "Say works, or is accepted.", "says what would do"),
    Turn(r"\b(?:is|are|was|were) not concerned\b", "Say is not affected.", "SSH is not concerned"),
    Turn(r"\bsays? so\b|\bsaid so\b|\bsaying so\b", "Say what is shown.", "the pages say so"),
    Turn(r"\bat (?:its|their) (?:start|end)\b", "Say when it starts, or ends.", "at its start it warns"),
    Turn(r"\bon purpose\b|\bknowingly\b|\bopen eyes\b", "State the reason.", "is not one, on purpose"),
    Turn(r"\bbut for\b|\ball but\b", "Say except.", "all tests but for the slow suites"),
    Turn(r"\bat hand\b", "Say available.", "where the chart is at hand"),
    Turn(r"\bnobody there\b|\bgets? away\b|\bmakes? way\b", IDIOM, "younger requests make way"),
    Turn(r"\bin (?:its|their|your|the) way\b", "Say blocks.", "the request in the way"),
    Turn(r"\bcut short\b|\bbroken off\b|\bbreaks? off\b", "Say interrupted.", "a start broken off"),
    Turn(r"\byours to\b|\bit is for you to\b", IDIOM, "MPI is yours to install"),
    Turn(r"\bif (?:it|this|that) stays\b", "Say if this continues.", "tell an operator if it stays"),
    Turn(r"\bback with:", "Say to return it to the pool.", "Back with: gpu-dev node undrain"),
    Turn(r"\bgood for\b", "Say valid for.", "a token good for one attempt"),
    Turn(r"\bin all(?=\s*[.,;:)|]|$)", "Say in total.", "until 03:42, 2 h in all."),
    Turn(r"\bhave it back\b|\bwant(?:s|ed)? back\b", "Say restart.", "in case you have it back"),
)
_COMPILED = [(turn, turn.compiled()) for turn in TURNS]


@dataclass(frozen=True)
class Finding:
    """A text to rewrite, and its place."""

    path: Path
    line: int
    phrase: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase}: {self.reason}"


def turns_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield each turned phrase of a text: its offset, the phrase and the reason."""
    for turn, pattern in _COMPILED:
        for match in pattern.finditer(text):
            yield match.start(), " ".join(match[0].split()), turn.reason


def long_sentences_in(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield each sentence that is too long: its offset, its first words and its length."""
    for match in _SENTENCE.finditer(text):
        words = [word for word in match[0].split() if re.search(r"\w|…", word)]
        if len(words) > LONGEST_SENTENCE:
            start = match.start() + len(match[0]) - len(match[0].lstrip())
            yield start, " ".join(words[:6]), f"{len(words)} words in one sentence"


def findings(path: Path, *, long: bool = False) -> list[Finding]:
    """Return what to rewrite in a file, in the order of its lines.

    Raises ``ValueError`` for kinds of files that cannot be read here.
    """
    read = _makefile if path.name == "Makefile" else READERS.get(path.suffix)
    if read is None:
        raise ValueError(f"{path}: only Makefile and {', '.join(READERS)} are read")
    found = []
    for line, text in read(path.read_text()):
        for check in (turns_in, long_sentences_in) if long else (turns_in,):
            for offset, phrase, reason in check(text):
                found.append(Finding(path, line + text.count("\n", 0, offset), phrase, reason))
    return sorted(found, key=lambda finding: finding.line)


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files among and below these paths that can be read here."""
    for path in paths:
        if path.is_dir():
            for below in sorted(path.rglob("*")):
                if below.suffix in READERS and below.is_file() and not FOLDERS_LEFT_OUT & set(below.parts):
                    yield below
        else:
            yield path


def _blanked(pattern: str, text: str) -> str:
    """Return the text with each match replaced by slots, line by line, so that offsets and lines stay."""
    return re.sub(pattern, lambda match: re.sub(r"[^\n]", SLOT, match[0]), text)


def _erased(pattern: str, text: str) -> str:
    return re.sub(pattern, lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    """Return Markdown without code, comments and addresses of links."""
    text = _erased(r"(?ms)^[ >]*(```|~~~).*?^[ >]*\1[^\n]*|<!--.*?-->", text)
    text = _blanked(r"``.+?``|`[^`]+`", text)
    yield 1, _erased(r"(?<=\])\([^)\s]*\)", text)


def _html(text: str) -> Iterator[tuple[int, str]]:
    """Return a template without comments, scripts, statements and tags, but with visible attributes."""
    text = _erased(r"(?s)\{#.*?#\}|<!--.*?-->|<(script|style|svg)\b.*?</\1>", text)
    shown = re.compile(r"(?s)\b(?:title|aria-label|placeholder|alt|content)=\"([^\"]*)\"")
    for match in shown.finditer(text):
        yield 1 + text.count("\n", 0, match.start(1)), _blanked(r"(?s)\{[{%].*?[%}]\}", match[1])
    yield 1, _erased(r"(?s)<[^>]*>", _blanked(r"(?s)\{\{.*?\}\}", _erased(r"(?s)\{%.*?%\}", text)))


def _drawing(text: str) -> Iterator[tuple[int, str]]:
    """Return the text of a drawing."""
    yield 1, _erased(r"(?s)<[^>]*>", text)


def _script(text: str) -> Iterator[tuple[int, str]]:
    """Return the strings of JavaScript or TypeScript, with slots for values."""
    token = re.compile(
        r"(?s)//[^\n]*|/\*.*?\*/|\"((?:\\.|[^\"\\\n])*)\"|'((?:\\.|[^'\\\n])*)'|`((?:\\.|[^`\\])*)`"
    )
    for match in token.finditer(text):
        for group, said in enumerate(match.groups(), 1):
            if said is not None and " " in said:
                yield 1 + text.count("\n", 0, match.start(group)), _blanked(r"\$\{[^}]*\}", said)


def _python(text: str) -> Iterator[tuple[int, str]]:
    """Return the strings of Python that are not docstrings, with slots for values."""
    tree = ast.parse(text)
    left_out: set[int] = set()
    for node in ast.walk(tree):
        # Docstrings, of attributes too: strings that are statements.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in node.values}
            said = "".join(
                str(part.value) if isinstance(part, ast.Constant) else SLOT for part in node.values
            )
            yield node.lineno, _blanked(r"`[^`]+`", said)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and id(node) not in left_out
        ):
            yield node.lineno, _blanked(r"`[^`]+`", node.value)


def _notebook(text: str) -> Iterator[tuple[int, str]]:
    """Return the cells of a notebook; lines are counted from its first cell."""
    line = 1
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        for at, said in _markdown(source) if cell["cell_type"] == "markdown" else [(1, source)]:
            yield line + at - 1, said
        line += source.count("\n") + 1


def _makefile(text: str) -> Iterator[tuple[int, str]]:
    """Return what `make help` prints."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"[a-z0-9-]+:.*## (.*)", line):
            yield number, match[1]


READERS: dict[str, Callable[[str], Iterator[tuple[int, str]]]] = {
    ".md": _markdown,
    ".html": _html,
    ".svg": _drawing,
    ".js": _script,
    ".mjs": _script,
    ".ts": _script,
    ".tsx": _script,
    ".py": _python,
    ".ipynb": _notebook,
}
"""By suffix of the file's name: the function that returns the texts that people read, with their lines."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Find turned phrases in what people read.")
    parser.add_argument("--long", action="store_true", help="also list long sentences")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    arguments = parser.parse_args()
    found = [finding for path in files(arguments.paths) for finding in findings(path, long=arguments.long)]
    for finding in found:
        sys.stdout.write(f"{finding}\n")
    sys.stderr.write(f"{len(found)} to rewrite\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
