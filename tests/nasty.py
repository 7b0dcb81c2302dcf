"""Texts and values that are hard to hold: for people, for JSON, for a browser, for a file."""

import random

LARGEST_SEED = 2**63 - 1

TEXTS = (
    "", " ", "a", " a cat ", "a\nb", "a\r\nb", "a\rb", "\ta", "a, b", "a||b", "||", "a | b", "a;b",
    "a=b", "a = b", ":=", ":=[1]", "seed=1", "a,seed=1", "a, seed>2,prompt=x", "skip: the bus",
    "SKIP:", "skip:skip:", '"', '"a"', "'a'", '"a", "b"', "[1]", '["a"]', "{}", '{"a": 1}', "null",
    "none", "None", "default", "true", "True", "no", "1", "01", "1.0", "1e5", "-0", "1..3", "..",
    "1,2,..,9", "NaN", "Infinity", "a+b", "+", "a@b", "@", "a@b:c", "~", "~nobody", "\\", "\\n",
    "C:\\models\\x, y", "%s %d", "{0}", "$x$", "<b>", "</script><!--", "&amp;", "`", "#", "*", "?",
    "日本語、||、車", "красная машина", "🚗👩\u200d👩\u200d👧", "e\u0301", "é", "ß", "SS", "İ",
    "\u202eabc", "\u00a0", "\u2028", "a\u2028b", "a\x85b", "\ufeff", "a\x0bb", "a\x1cb", "\x7f",
    "=1+1", "@SUM(1)", "-1", "a" * 300, "a" * 299 + "b", "車" * 100, "x" * 9_999,
    ", ".join("abcdefgh"), "a  b", "a b", "A B",
)  # fmt: skip
PATHS = (
    "a.safetensors", "rank=8.safetensors", "rank=8", "a=0.5", "a=b=1", "a,b", "a+b", "a+b=2,c",
    "a b", " a", "a ", "a@b", "a@b:c", "a@", "a:b", "a;b", "a||b", "none", "{", "{a}", "#a", "~a",
    '{"path": "x"}', '"a"', "[a]", "[1]", "a'b", "a\nb", "a\u2028b", "a%20b", "1..3", "..", "1",
    "日本/車.safetensors", "true", "a&b", "a*b?", "a|b", "$HOME", "a\\b", "=", "=1", "+", ",", "-a",
    "a" * 200,
)  # fmt: skip
NUMBERS = (0.0, 1.0, 1e-9, 0.1, 0.03, 0.1 + 0.2, 1.2345678, 1.2345679, 0.1234567, 1 / 3, 2 / 3, 7.5,
           99.99999999999999, 100.0, 5e-324, 1e-7, 12.345678901234567)
SEEDS = (0, 1, 7, 2**31, 2**32, 2**53 - 1, 2**53, 2**53 + 1, 10**16 + 1, 12345678901234567,
         LARGEST_SEED - 1, LARGEST_SEED)
OPTIONS = (True, False, 2, -1, 2**53 + 1, LARGEST_SEED, 1.5, 3.0, 1e-9, 0.1 + 0.2, *TEXTS)

SIGNS = " \n\t,;|=+:@\"'\\/{}[]<>&~#.-_%$*?()!0123456789eEaAßé車🚗\u00a0\u2028\u200d"
# Texts that are read slowly, deeply or with great numbers where a reader is careless.
ENDLESS = ("9" * 5_000, "1..2/" + "9" * 5_000, "0.." + "9" * 5_000, "1." + "9" * 5_000,
           "1..3/" + "0" * 5_000 + "2", "1,2,..,1" + "0" * 30, "[" * 10_000, "{" * 10_000,
           '[{"a":' * 10_000, "[" + "9" * 5_000 + "]", "1e999", "[1e999]", "[NaN]", "nan..nan",
           '["\\ud800"]', "\ud800", "a\x00b", "[1,2", "[{}]", "[[1]]", "[[1,2],[3]]", "[true,1]",
           '{"search":1,"values":[1]}', '{"search":null,"values":[]}', "[null]", '["a","a"]',
           "\u0661..\u0663", "1_0", "0x10", "1..3/0", "1..3:0", '[{"path":"a","weight":1e400}]',
           '[{"path":1}]', "a" * 10_000, "a=b," * 2_500, "a:=1," * 2_000)  # fmt: skip


def random_texts(seed: int, count: int) -> list[str]:
    """Texts of up to 12 signs, most of which separate something somewhere."""
    source = random.Random(seed)
    words = ("skip:", ":=", "||", "..", "seed=", "none", "null", "true", ", ")
    return ["".join(source.choice(words) if source.random() < 0.15 else source.choice(SIGNS)
                    for _ in range(source.randrange(12))) for _ in range(count)]
