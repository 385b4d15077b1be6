"""What the page asks for besides chat: routes under `/api/`.

    GET  /api/run        the run: its stages, what they said on the way, the shape of the model
    GET  /api/training   curves, from a byte of metrics.jsonl on: ?since=N
    POST /api/prompt     messages -> the tokens that the model is given
    POST /api/tokens     text -> pieces and tokens
    POST /api/merges     a piece -> its merges, one by one
    POST /api/xray       ids -> what each row looked at, would say by layer, predicts
    POST /api/time       ids -> milliseconds of one step, by part

Each takes and gives one JSON object. Nothing here changes the run, and each answer has a limit on what it computes.
"""

import base64
import json
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from torch import Tensor

from nanochat.errors import UsageError
from nanochat.gpt import GPT
from nanochat.serve import live
from nanochat.serve.conversation import Speaker, fitted
from nanochat.serve.merges import merges, pieces, spelled
from nanochat.serve.models import Models
from nanochat.serve.protocol import conversation
from nanochat.serve.schema import CHAT, check
from nanochat.serve.trace import Trace, Xray
from nanochat.tokenizer import Tokenizer

MOST_BYTES = 1 << 18  # of a request's body
CHOICES = 8  # tokens that are listed as what could have come
LENS = 3  # tokens that each layer would say

Body = dict[str, Any]


def routes(models: Models) -> list[BaseRoute]:
    """The routes, for the models of a run."""
    return Looking(models).routes()


class Looking:
    """A run that is looked into, and the models of it that were opened for that."""

    def __init__(self, models: Models) -> None:
        self.models, self.run = models, models.run
        self.opened: dict[str, tuple[GPT, Xray]] = {}
        self.lock = threading.Lock()

    def routes(self) -> list[BaseRoute]:
        """What is answered, and by which path."""
        asked = {
            "prompt": self.prompt, "tokens": self.tokens, "merges": self.merges, "xray": self.xray, "time": self.time
        }  # fmt: skip
        return [
            Route("/api/run", answering(self.about)),
            Route("/api/training", answering(self.training)),
            *(Route(f"/api/{name}", answering(work), methods=["POST"]) for name, work in asked.items()),
        ]

    def about(self, body: Body) -> Body:
        """The run, for the page's start; before its first checkpoint without a model."""
        found: Body = {"run": self.models.alias, "stages": live.stages(self.run) if self.run else []}
        if not self.models.list():
            return found | {"stage": None, "model": None, "parameters": 0, "tools": [], "specials": {}}
        speaker = self.models.load().speaker
        config, tokenizer = speaker.engine.model.config, speaker.engine.tokenizer
        model = gpt_of(speaker)
        return found | {
            "stage": speaker.stage,
            "tools": sorted(speaker.engine.rules.tools),
            "specials": {str(token): name for name, token in tokenizer.specials.items()},
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "bytes": torch.finfo(model.dtype).bits // 8,
            "model": {
                name: getattr(config, name)
                for name in ("n_layer", "n_head", "n_kv_head", "n_embd", "head_size", "context", "vocab_size")
            },
        }

    def training(self, body: Body) -> Body:
        """What has been learned since the last question."""
        if self.run is None:
            return {"anew": False, "next": 0, "rows": {}}
        return live.training(self.run, whole(body, "since", 0))

    def prompt(self, body: Body) -> Body:
        """The tokens that the model is given for a conversation, as the chat's endpoint would."""
        speaker, messages = self.speaker(body), body.get("messages")
        check(messages, CHAT["properties"]["messages"], "messages")
        ids, _ = fitted(speaker, conversation(messages or []))
        return {"tokens": spelled(speaker.engine.tokenizer, ids)}

    def tokens(self, body: Body) -> Body:
        """A text's pieces, each with its tokens."""
        tokenizer = self.speaker(body).engine.tokenizer
        cut = pieces(tokenizer, text_of(body))
        return {"pieces": [{"text": piece, "tokens": spelled(tokenizer, ids)} for piece, ids in cut]}

    def merges(self, body: Body) -> Body:
        """A piece's way from bytes to tokens."""
        tokenizer = self.speaker(body).engine.tokenizer
        begin, done = merges(tokenizer, text_of(body))
        met = [*begin, *(merge.new for merge in done)]
        return {
            "begin": begin,
            "merges": [{"at": merge.at, "new": merge.new, "rank": merge.rank} for merge in done],
            "tokens": {str(token["id"]): token for token in spelled(tokenizer, list(dict.fromkeys(met)))},
        }

    def xray(self, body: Body) -> Body:
        """Rows of a trace, as small as they can be sent."""
        speaker, ids = self.speaker(body), ids_of(body)
        start = whole(body, "start", 0)
        looks = body.get("attention", True) is True
        trace = self.opened_up(speaker).read(ids, start, looks)
        return {"start": start, "rows": rows_of(trace, ids, speaker.engine.tokenizer, looks)}

    def time(self, body: Body) -> Body:
        """Where a step's time goes."""
        parts = self.opened_up(self.speaker(body)).time_a_token(ids_of(body))
        return {"parts": [{"part": part, "milliseconds": round(ms, 4)} for part, ms in parts]}

    def speaker(self, body: Body) -> Speaker:
        """The model that a request names; without a name, the one that answers by default."""
        name = body.get("model", "")
        if not isinstance(name, str):
            raise UsageError("a model's name", repr(name)[:40])
        return self.models.load(name).speaker

    def opened_up(self, speaker: Speaker) -> Xray:
        """The stage's model with hooks in it; anew where a newer checkpoint has taken its place."""
        model = gpt_of(speaker)
        with self.lock:
            known = self.opened.get(speaker.stage)
            if known is None or known[0] is not model:
                known = self.opened[speaker.stage] = (model, Xray(model))
        return known[1]


def gpt_of(speaker: Speaker) -> GPT:
    """The model itself. Raises UsageError for one of another make, which has no blocks to look into."""
    model = speaker.engine.model
    if not isinstance(model, GPT):
        raise UsageError("a model of the portable architecture", type(model).__name__)
    return model


def answering(work: Callable[[Body], Body]) -> Callable[[Request], Awaitable[Response]]:
    """A route that reads one JSON object and has `work` done beside the event loop."""

    async def answer(request: Request) -> Response:
        body = dict(request.query_params) if request.method == "GET" else await body_of(request)
        return JSONResponse(await run_in_threadpool(work, body))

    return answer


async def body_of(request: Request) -> Body:
    """The JSON object of a request. Raises UsageError for another body, and for one that is too long."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise UsageError(f"a body of at most {MOST_BYTES:,} bytes", "more")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise UsageError("one JSON object", repr(data[:40]))
    return body


def rows_of(trace: Trace, ids: Sequence[int], tokenizer: Tokenizer, looks: bool) -> list[Body]:
    """Each row: its token, what it predicts and how surely, how likely what came was; and with `looks` the inside."""
    log_p = trace.logits.float().log_softmax(-1)
    likeliest = top(log_p, CHOICES, tokenizer)
    entropy = torch.special.entr(log_p.exp()).sum(-1).tolist()
    lens = [top(layer.float().log_softmax(-1), LENS, tokenizer) for layer in trace.lens]
    found = []
    for number, token in enumerate(spelled(tokenizer, ids[trace.start :])):
        place = trace.start + number
        row: Body = {"token": token, "next": likeliest[number], "entropy": round(entropy[number], 4)}
        if place + 1 < len(ids):
            p = log_p[number, ids[place + 1]]
            row["came"] = {"p": rounded(p), "rank": int((log_p[number] > p).sum()) + 1}
        if looks:
            seen = trace.attention[:, :, number, : place + 1]
            row["attention"] = base64.b64encode((255 * seen).round().byte().cpu().numpy().tobytes()).decode()
            row["lens"] = [layer[number] for layer in lens]
            row["memory"] = [round(length, 3) for length in trace.memory[:, number].tolist()]
        found.append(row)
    return found


def top(log_p: Float[Tensor, "N V"], count: int, tokenizer: Tokenizer) -> list[list[Body]]:
    """For each row its likeliest tokens."""
    best = log_p.topk(min(count, log_p.shape[-1]), dim=-1)
    return [
        [{"id": token, "text": tokenizer.decode([token]), "p": round(math.exp(lp), 5)} for token, lp in
         zip(*row, strict=True)]
        for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]  # fmt: skip


def rounded(log_p: Tensor) -> float:
    """A probability, to five places."""
    return round(float(log_p.exp()), 5)


def text_of(body: Body) -> str:
    """The request's text."""
    text = body.get("text")
    if not isinstance(text, str):
        raise UsageError('a text in "text"', repr(text)[:40])
    return text


def ids_of(body: Body) -> list[int]:
    """The request's ids."""
    ids = body.get("ids")
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise UsageError('a list of whole numbers in "ids"', repr(ids)[:40])
    return ids


def whole(body: Body, name: str, default: int) -> int:
    """A whole number of the request."""
    value = body.get(name, default)
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UsageError(f"a whole number in {name!r}", repr(value)[:40]) from None
