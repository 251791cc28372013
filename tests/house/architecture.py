"""Checks that docs/ARCHITECTURE.md tells the truth: every path and every symbol that stands there
in backticks exists. Called by check_house.

Which words in backticks are checked (fenced code blocks are left alone):
* A path has a "/" inside, or ends like a source file (ops.h). With a "/" it is relative to the root
  and must be a file or a folder; a bare file name must be the name of some file. "*" and "{a,b}"
  are patterns that must match something. A header that some file includes with <> is fine too.
* A symbol is identifiers joined with "::", "." or "->", perhaps with arguments in () or <> behind,
  which are not looked at. Each identifier must stand in some source file outside of comments.
* Everything else is a command, a flag, a route or prose, and is left alone: what has a blank in it,
  begins with "-" or "/", or has other characters.
"""

import fnmatch
import re


DOCUMENT = "docs/ARCHITECTURE.md"
SOURCES = (".h", ".cc", ".cu", ".cuh", ".proto", ".py", ".txt", ".toml")
FILE_NAME = re.compile(r"[\w.*{},-]+\.(?:h|cc|cu|cuh|proto|py|toml|md|txt|json|jinja)")
PATH = re.compile(r"[\w.][\w.*{},/-]*/[\w.*{},/-]*")
FENCE = re.compile(r"^ *```.*?^ *```", re.S | re.M)
SYMBOL = re.compile(r"[A-Za-z_]\w*(?:(?:::|\.|->)~?[A-Za-z_]\w*)*(?:<[^<>]*>)?(?:\([^()]*\))?")


def check(texts):
    """texts: path -> text of every file. Yields (line, reason)."""
    if DOCUMENT not in texts:
        yield 1, "the file is missing"
        return
    names = set(texts)
    for path in texts:
        parts = path.split("/")
        names.update("/".join(parts[:i]) for i in range(1, len(parts)))
    identifiers = None
    for line, word in words(texts[DOCUMENT]):
        if " " in word or word.startswith(("-", "/")):
            continue
        if PATH.fullmatch(word) or FILE_NAME.fullmatch(word):
            system = re.compile(r"#\s*include\s*<" + re.escape(word) + ">")
            if any(system.search(text) for text in texts.values()):
                continue
            for path in expand(word):
                if not exists(path.rstrip("/"), names):
                    yield line, f"there is no path `{path}`"
        elif SYMBOL.fullmatch(word):
            if identifiers is None:
                identifiers = all_identifiers(texts)
            bare = re.sub(r"[<(].*", "", word)
            for name in re.findall(r"\w+", bare):
                if name not in identifiers:
                    yield line, f"no source names the symbol `{name}`"


def words(text):
    text = re.sub(FENCE, lambda m: re.sub(r"[^\n]", " ", m.group()), text)
    for number, line in enumerate(text.split("\n"), 1):
        for match in re.finditer(r"`([^`]+)`", line):
            yield number, match.group(1).strip()


def expand(word):
    """a{b,c}d -> abd, acd"""
    match = re.search(r"\{([^{}]*)\}", word)
    if not match:
        return [word]
    return [
        path
        for choice in match.group(1).split(",")
        for path in expand(word[: match.start()] + choice + word[match.end() :])
    ]


def exists(path, names):
    if "/" not in path:
        return any(fnmatch.fnmatchcase(name.rsplit("/", 1)[-1], path) for name in names)
    if "*" not in path:
        return path in names
    # A "*" stays inside of one folder's name.
    pattern = re.compile(re.escape(path).replace(r"\*", "[^/]*"))
    return any(pattern.fullmatch(name) for name in names)


def all_identifiers(texts):
    found = set()
    for path, text in texts.items():
        base = path.rsplit("/", 1)[-1]
        if path.startswith("docs/") or not (path.endswith(SOURCES) or "." not in base):
            continue
        if path.endswith((".h", ".cc", ".cu", ".cuh", ".proto")):
            # Comments go, strings stay: names of metrics and variables live in them.
            text = re.sub(
                r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/',
                lambda m: m.group(1) or " ",
                text,
                flags=re.S,
            )
        found.update(re.findall(r"[A-Za-z_]\w*", text))
    return found
