"""How answers look in a terminal: as they come, with the calls of tools; and afterwards as a table of tokens."""

import math
import re
import sys
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nanochat.engine import Piece
from nanochat.serve.conversation import Turn
from nanochat.tokenizer import Tokenizer

OUTPUT_LINES = 6  # of a tool's answer that are shown
LEAST_SHOWN = 0.005  # a token less likely than this was no real alternative
ENDINGS = {
    "length": "cut: no more tokens to answer with",
    "malformed": "ended by a special token that has no place here",
}
INVENTED = "invented: this recipe is not from the Cookbook"


def show_answer(turn: Turn, console: Console) -> bool:
    """Print the answer as it comes, and remarks on it; False where Ctrl-C stopped it."""
    screen = AnswerOnScreen(console)
    if not turn.speaker.takes_turns:
        screen.write(turn.question, "dim")
    completed = False
    try:
        for piece in turn:
            screen.show(piece)
        completed = True
    except KeyboardInterrupt:
        pass
    screen.end()
    for remark in remarks(turn, completed):
        console.print(Text(f"({remark})"), style="yellow" if remark == INVENTED else "dim")
    return completed


def remarks(turn: Turn, completed: bool) -> Iterator[str]:
    """What the reader should know about an answer: how it ended, and where a recipe is from."""
    if not completed:
        yield "stopped"
    elif turn.finish in ENDINGS and turn.speaker.takes_turns:  # plain text has no end that it could reach
        yield ENDINGS[turn.finish]
    elif not turn.reply.text.strip():
        yield "an empty answer"
    match turn.provenance:
        case "found":
            yield "found in the Cookbook"
        case "invented":
            yield INVENTED


class AnswerOnScreen:
    """Pieces of an answer, printed as they come: words wrapped whole, calls and what tools answer dimmed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = console.width if console.is_terminal else sys.maxsize
        self.column = 0
        self.gap = ""  # spaces after the last printed word: dropped where the line ends
        self.word = ""  # not printed yet: it may go on, and then not fit into this line
        self.style = ""
        self.in_call = False
        self.output = ""

    def show(self, piece: Piece) -> None:
        """Print what a piece adds."""
        if piece.kind == "output":
            self.output += piece.text
        elif piece.text:
            if piece.kind == "call" and not self.in_call:
                self.write("[", "dim")
                self.in_call = True
            elif piece.kind == "text":
                self.close_call()
            self.write(piece.text, "dim" if piece.kind == "call" else "")

    def close_call(self) -> None:
        """Print what the tool answered: a number within the line, a recipe below it, and not all of that."""
        if not self.in_call and not self.output:
            return
        lines = self.output.splitlines()
        if len(lines) <= 1:
            self.write(f" = {self.output}] " if lines else "] ", "dim")
        else:
            more = [f"... and {len(lines) - OUTPUT_LINES} more lines"] if len(lines) > OUTPUT_LINES else []
            self.write("]\n" + "".join(f"  │ {line}\n" for line in [*lines[:OUTPUT_LINES], *more]), "dim")
        self.in_call, self.output = False, ""

    def end(self) -> None:
        """Print what is held back, and end the line."""
        self.close_call()
        self.end_word()
        if self.column:
            self.end_line()

    def write(self, text: str, style: str = "") -> None:
        """Print text, wrapped between words."""
        if style != self.style:
            self.end_word()
            self.style = style
        for part in re.split(r"(\s)", text):
            if part and not part.isspace():
                self.word += part
                if len(self.word) >= self.width:
                    self.end_word()
            elif part:
                self.end_word()
                if part == "\n":
                    self.end_line()
                else:
                    self.gap += " "

    def end_word(self) -> None:
        """Print the held word, in the next line where it does not fit into this one."""
        word, self.word = visible(self.word).plain, ""
        if not word:
            return
        if self.column and self.column + len(self.gap) + cell_len(word) > self.width:
            self.end_line()
        self.put(self.gap + word)
        self.column += len(self.gap) + cell_len(word)
        if self.column > self.width:  # longer than a line: the terminal has broken it
            self.column %= self.width
        self.gap = ""

    def end_line(self) -> None:
        """Begin the next line; the spaces before it are dropped."""
        self.put("\n")
        self.column, self.gap = 0, ""

    def put(self, text: str) -> None:
        """Print as it is, at once."""
        self.console.print(Text(text, style=self.style), end="", soft_wrap=True)


def visible(text: str) -> Text:
    """`text` to be printed as it is: no markup in it, and characters that command a terminal as their pictures.

    >>> visible("a[red]\\x1b[31mb").plain
    'a[red]␛[31mb'
    """
    return Text("".join(map(picture, text)))


def picture(letter: str) -> str:
    """What shows a character: itself, unless it moves the cursor, turns the writing round or is no character."""
    code = ord(letter)
    if letter == "\n":
        return letter
    if code < 32:
        return chr(0x2400 + code)
    if 127 <= code < 160 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return letter


def token_table(pieces: Sequence[Piece], tokenizer: Tokenizer) -> Table:
    """Each token with its probability and the likeliest others; what tools wrote has neither."""
    table = Table("token", "", "others", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[1].justify = "right"
    for piece in pieces:
        name = visible(spelled(tokenizer, piece.id))
        if not piece.sampled:
            name.stylize("dim")
            table.add_row(name, Text("tool", style="dim"), "")
            continue
        share = math.exp(piece.logprob)
        colour = "green" if share >= 0.5 else "yellow" if share >= 0.1 else "red"
        others = "  ".join(
            f"{spelled(tokenizer, token)} {p:.0%}"
            for token, _, p in piece.alternatives
            if token != piece.id and p >= LEAST_SHOWN
        )
        table.add_row(name, Text(f"{share:.1%}", style=colour), visible(others))
    return table


def spelled(tokenizer: Tokenizer, token: int) -> str:
    """A token for a table: spaces and line ends as signs, and bytes that are no whole character in hexadecimal."""
    data = tokenizer.token_bytes(token)
    if not data:
        return tokenizer.decode([token])
    try:
        return data.decode("utf-8").replace(" ", "·").replace("\n", "⏎")
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in data)
