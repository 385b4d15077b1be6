"""The same question to a model as it learns."""

from nanochat.engine import Engine, Sampling
from nanochat.tokenizer import Call, Message, Output, message, prompt, read_reply

LAPSE_TOKENS = 48
LAPSE_QUESTION = "How do I make pancakes?"  # asked in every stage, so that they can be set side by side


def ask(engine: Engine, question: str, seed: int, max_tokens: int = LAPSE_TOKENS) -> str:
    """The model's likeliest answer, calls and outputs shown in brackets."""
    ids = prompt(engine.tokenizer, [message("user", question)])
    answer = engine.generate([ids], Sampling(temperature=0, max_tokens=max_tokens, seed=seed))[0]
    return shown(read_reply(engine.tokenizer, answer.ids))


def continue_text(engine: Engine, text: str, seed: int, max_tokens: int = LAPSE_TOKENS) -> str:
    """How the model goes on from `text`, at a temperature low enough to be itself and high enough not to loop."""
    ids = [engine.tokenizer.special("<|bos|>"), *engine.tokenizer.encode(text)]
    answer = engine.generate([ids], Sampling(temperature=0.7, top_k=50, max_tokens=max_tokens, seed=seed))[0]
    return answer.text


def shown(reply: Message) -> str:
    """A reply as one line of text: `[calculator 10/4*2 = 5] It is 5.`"""
    words = []
    for part in reply.parts:
        if isinstance(part, Call):
            words.append(f"[{part}")
        elif isinstance(part, Output):
            words.append(f" = {part.text}] ")
        else:
            words.append(part.text)
    return "".join(words)
