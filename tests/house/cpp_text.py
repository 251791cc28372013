"""C++ text as far as the house's rules need it: without comments and strings, its includes,
and where functions begin and end. A heuristic by braces, good enough to measure lengths; never a
parser. Called by check_house."""

import re

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.M)
PIECES = re.compile(
    r"""//[^\n]*
      | /\*.*?\*/
      | (?:u8|[uUL])?R"(?P<mark>[^()\s\\]*)\(.*?\)(?P=mark)"
      | "(?:\\.|[^"\\\n])*"
      | (?<![0-9A-Za-z_])'(?:\\.|[^'\\\n])+'""",
    re.S | re.X,
)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\r?\n)*[^\n]*", re.M)


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def includes(text):
    """(line, name, quoted) for each #include outside of comments."""
    plain = re.sub(r"/\*.*?\*/", blank, text, flags=re.S)
    return [
        (plain.count("\n", 0, m.start()) + 1, m.group(1) or m.group(2), m.group(1) is not None)
        for m in INCLUDE.finditer(plain)
    ]


def strip(text):
    """The text with comments, strings and preprocessor lines blanked, line breaks kept."""
    return DIRECTIVE.sub(blank, PIECES.sub(blank, text))


def functions(plain):
    """(first line, length in lines) of each function body in stripped text.

    A "{" begins a function when it is not inside of one and the text since the last ";", "{" or "}"
    has a "(" that is not behind a "=": int f(int x) const {  but not  constexpr int k[] = {.
    Members initialised with braces are seen through: C() : a_{1}, b_{2} { is one function.
    """
    found = []
    stack = []  # (is_function, first line, is_outermost_function)
    begin = 0  # of the text that could be a function's head
    head = None  # the first line of a head whose member initialisers are being read
    for match in re.finditer(r"[;{}]", plain):
        at, char = match.start(), match.group()
        inside = any(is_function for is_function, _ in stack)
        if char == "{":
            text = plain[begin:at]
            line = plain.count("\n", 0, begin + len(text) - len(text.lstrip())) + 1
            is_function = not inside and (head is not None or is_head(text))
            stack.append((is_function, head if head is not None else line))
            head = None
        elif char == "}" and stack:
            is_function, line = stack.pop()
            if is_function and re.match(r"\s*[,{]", plain[at + 1 :]):
                head = line  # that was a member's initialiser
            elif is_function:
                found.append((line, plain.count("\n", 0, at) + 2 - line))
        elif char == ";":
            head = None
        begin = at + 1
    return found


def is_head(text):
    parenthesis = text.find("(")
    equals = re.search(r"(?<![=!<>])=(?!=)", text[:parenthesis] if parenthesis >= 0 else "")
    return parenthesis >= 0 and ("operator" in text or equals is None)
