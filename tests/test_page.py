"""The page in a real browser: each view is used as its readers use it, and watched while it is.

In every test a message on the browser's console, a request to another server or a page wider than its window fails.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat.checkpoint import run_folder
from nanochat.data import Recipe
from nanochat.runtime import Runtime
from nanochat.scheduler import Scheduler
from nanochat.serve.models import Models, stages_to_serve
from tests.serving import serving

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to drive a browser")
AXE = pytest.importorskip("axe_playwright_python.base", reason="pip install axe-playwright-python")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Page = Any
VIEWS = ("chat", "stages", "xray", "tokens", "training")
KITCHEN = [
    Recipe("Pancakes", None, 4, 20, 1, ("2 cups wheat flour", "3 eggs", "1 cup milk"), ("Mix all.", "Fry it.")),
    Recipe("Banana Bread", None, 8, 60, 2, ("3 bananas", "2 cups wheat flour"), ("Mash the bananas.", "Bake it.")),
]
NASTY = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "[click](javascript:window.pwned=1)",
    "[click](data:text/html,<script>window.pwned=1</script>)",
    "![x](https://example.com/a.png)",
    "**<svg onload=window.pwned=1>**",
    "`<iframe srcdoc='<script>parent.pwned=1</script>'>`",
    "```html\n<script>window.pwned = 1</script>\n```",
    "- <a href='javascript:window.pwned=1'>x</a>",
    '[x](https://example.com/"onmouseover="window.pwned=1)',
    "[x](https://example.com/a' onclick='window.pwned=1)",
    "# <b onclick=window.pwned=1>title</b>",
    "> <object data='javascript:window.pwned=1'>",
    "<style>@import 'https://example.com/x.css'</style>",
    "\u202e\x00<script>window.pwned=1</script>\u2028",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped run, to be changed at will."""
    folder = tmp_path_factory.mktemp("runs") / "reference"
    shutil.copytree(run_folder("reference"), folder)
    return folder


@pytest.fixture(scope="module")
def url(run: Path) -> Iterator[str]:
    runtime = Runtime(torch.device("cpu"), torch.float32)
    models = Models(
        stages_to_serve(run, "", runtime, KITCHEN), lambda speaker: Scheduler(speaker.engine), "reference", run
    )
    models.load()
    with serving(models) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextlib.contextmanager
def opened(browser: Any, url: str, view: str, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """A view in a window of its own; complaints fail when it is closed."""
    context = browser.new_context(
        viewport={"width": width, "height": 780}, color_scheme=scheme, reduced_motion="reduce", accept_downloads=True
    )
    context.add_init_script(script=axe_source())
    # The likeliest tokens: what is asked here is answered the same each time.
    context.add_init_script(script="localStorage['nanochat.settings'] ??= JSON.stringify({ temperature: 0 });")
    page, complaints = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((f"{url}/", "blob:")) else complaints.append(f"asks {asked.url}"),
    )
    page.goto(f"{url}/#{view}")
    page.wait_for_selector("main h1", state="attached")
    yield page
    assert complaints == []
    context.close()


@pytest.fixture
def page(browser: Any, url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The view that the test's mark names."""
    with opened(browser, url, getattr(request, "param", "chat")) as shown:
        yield shown


def axe_source() -> str:
    return (Path(AXE.__file__).parent / "axe.min.js").read_text("utf-8")


def ask(page: Page, question: str) -> None:
    """Ask in the chat, and wait for the end of the answer."""
    answers = page.locator(".answer .actions").count()
    page.fill("textarea", question)
    page.keyboard.press("Enter")
    page.locator(".answer .actions").nth(answers).wait_for()


def on_view(name: str) -> Any:
    return pytest.mark.parametrize("page", [name], indirect=True)


def test_chat_answers_with_tools_and_says_where_a_recipe_is_from(page: Page) -> None:
    ask(page, "What is 12 plus 30?")
    assert "12+30" in page.inner_text(".call code")
    assert "42" in page.inner_text(".answer >> nth=0")
    ask(page, "How do I make pancakes?")
    assert "pancakes" in page.inner_text(".call summary")
    assert "wheat flour" in page.inner_text(".answer >> nth=1")
    assert page.locator(".answer >> nth=1 >> .badge").count() == 1
    page.reload()
    page.wait_for_selector("#talks li")
    page.click("#talks li a")
    page.wait_for_selector(".answer")
    assert page.locator(".turn").count() == 2


def test_answers_have_versions_and_questions_can_be_edited(page: Page) -> None:
    ask(page, "What is 12 plus 30?")
    page.click("[aria-label='Another answer']")
    page.wait_for_selector("text=2 of 2")
    page.click("[aria-label='Earlier answer']")
    page.wait_for_selector("text=1 of 2")
    ask(page, "Who are you?")
    page.locator("[aria-label='Edit this question']").first.click()
    page.fill("[aria-label='Edit your question']", "What is 20 plus 30?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer .actions")
    assert page.locator(".turn").count() == 1
    assert "50" in page.inner_text(".answer")


def test_conversations_are_kept_exported_and_deleted_with_a_way_back(page: Page) -> None:
    ask(page, "What is 2 plus 3?")
    page.click("#new")
    page.wait_for_selector(".hello")
    ask(page, "What is 3 plus 4?")
    assert page.locator("#talks li").count() == 2
    page.click("[aria-label='Export this conversation']")
    with page.expect_download() as kept:
        page.click("text=JSON, with every token")
    told = json.loads(Path(kept.value.path()).read_text("utf-8"))
    assert told["turns"][0]["question"] == "What is 3 plus 4?"
    assert len(told["turns"][0]["answers"][0]["tokens"]) > 3
    page.hover("#talks li >> nth=1")
    page.click("#talks li >> nth=1 >> [aria-label^=Delete]")
    assert page.locator("#talks li").count() == 1
    page.click("text=Undo")
    page.wait_for_selector("#talks li >> nth=1")


def test_an_answer_can_be_stopped(page: Page) -> None:
    # Held on its way, so that there is time to stop it.
    page.route("**/v1/chat/completions", lambda route: None)
    page.fill("textarea", "How do I make banana bread?")
    page.click("[aria-label=Send]")
    page.click("[aria-label=Stop]")
    page.wait_for_selector("text=Stopped.")
    page.unroute("**/v1/chat/completions")


def test_how_it_answers_is_kept_and_sent(page: Page) -> None:
    page.click("[aria-label='How it answers']")
    page.fill("#set-temperature", "0")
    assert "always the likeliest" in page.inner_text("#hint-temperature")
    page.fill("#set-seed", "7")
    page.fill("#set-system", "Be kind.")
    page.keyboard.press("Escape")
    page.reload()
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "hello")
    body = sent.value.post_data_json
    assert (body["temperature"], body["seed"]) == (0, 7)
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}


def test_an_error_of_the_server_is_told_and_the_question_kept(page: Page) -> None:
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            status=200, content_type="text/event-stream", body='data: {"error": {"message": "expected luck"}}\n\n'
        ),
    )
    page.fill("textarea", "hello?")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=expected luck")
    assert page.input_value("textarea") == "hello?"


@on_view("stages")
def test_every_stage_answers_the_same_question(page: Page) -> None:
    page.fill("input.field", "What is 12 plus 30?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stage-rl >> xpath=../.. >> text=/tokens? in/")
    assert [page.inner_text(f".column >> nth={n} >> h2") for n in range(4)] == ["pretrain", "midtrain", "sft", "rl"]
    assert "were not shipped" in page.inner_text(".column >> nth=1")
    page.click("text=How do I make pancakes?")
    page.wait_for_selector("text=Recorded when the stage was trained >> nth=1")


@on_view("stages")
def test_training_passes_as_a_time_lapse(page: Page) -> None:
    assert "pretrain · step 150" in page.inner_text(".lapse")
    page.locator(".lapse input[type=range]").press("End")
    assert "rl · step 25" in page.inner_text(".lapse")
    assert page.locator(".lapse input[type=range]").get_attribute("aria-valuetext") == "rl · step 25"


def look(page: Page, question: str = "What is 12 plus 30?") -> None:
    """Ask in the X-ray, and wait until all has been read again."""
    page.fill("input.field", question)
    with page.expect_response(
        lambda r: r.url.endswith("/api/xray") and '"attention":false' in (r.request.post_data or "")
    ):
        page.keyboard.press("Enter")
    page.wait_for_selector(".chip.drawn[aria-pressed=true]")


@on_view("xray")
def test_each_token_tells_what_it_could_have_been(page: Page) -> None:
    look(page)
    assert page.locator(".chip.drawn").count() > 5
    assert page.locator(".chip.tool").count() >= 3
    assert page.locator(".bar-row").count() >= 8
    assert "likely" in page.inner_text(".inspector")
    before = page.inner_text(".flow")
    page.locator("button.bar-row").first.click()
    page.wait_for_selector(".forks .tab >> nth=1")
    page.wait_for_selector("text=Ask >> nth=0")
    assert page.inner_text(".flow") != before
    page.reload()
    page.wait_for_selector(".chip.drawn")
    assert page.locator(".bar-row").count() >= 8


@on_view("xray")
def test_the_inside_of_each_token_is_shown(page: Page) -> None:
    look(page)
    page.click("role=tab[name=Attention]")
    page.wait_for_selector(".head >> nth=15")
    assert page.locator(".arcs path").count() >= 1
    page.locator(".head").nth(6).click()
    page.wait_for_selector(".head[aria-checked=true][aria-label='Layer 2, head 3']")
    page.click("role=tab[name=Layers]")
    page.wait_for_selector(".lens li >> nth=4")
    assert page.locator(".lens .came").count() >= 1
    page.click("role=tab[name=Memory]")
    page.wait_for_selector(".inspector >> text=of 512")
    page.click("role=tab[name=Time]")
    page.click("text=Time this token")
    page.wait_for_selector("text=attention 4")


@on_view("xray")
def test_attention_comes_one_new_row_a_token_and_only_on_request(page: Page) -> None:
    sent: list[dict[str, Any]] = []
    page.on("request", lambda asked: sent.append(asked.post_data_json) if asked.url.endswith("/api/xray") else None)
    look(page)
    assert all(body["attention"] is False for body in sent)
    page.click("role=tab[name=Attention]")
    page.wait_for_selector(".head >> nth=15")
    sent.clear()
    look(page, "Who are you?")
    page.wait_for_timeout(500)
    rows = [len(body["ids"]) - body["start"] for body in sent if "start" in body]
    assert rows
    assert sum(rows) <= 2 * page.locator(".chip").count()  # while it wrote, and once more when all was read again


@on_view("xray")
def test_the_tour_has_six_steps(page: Page) -> None:
    page.click("#tour")
    titles = []
    for number in range(1, 7):
        page.wait_for_selector(f"text={number} of 6")
        titles.append(page.inner_text("#tour-title"))
        page.keyboard.press("Enter")  # the button for the next step has the focus
    assert len(set(titles)) == 6
    page.wait_for_selector(".tour", state="detached")


@on_view("xray")
def test_a_text_can_be_read_without_an_answer(page: Page) -> None:
    page.fill("input.field", "Preheat the oven")
    page.click("text=Read")
    page.wait_for_selector(".chip")
    assert page.locator(".chip.drawn").count() + page.locator(".chip.given").count() == page.locator(".chip").count()
    assert page.locator("button.bar-row").count() == 0


@on_view("tokens")
def test_a_text_becomes_tokens_and_merges(page: Page) -> None:
    page.fill("textarea", "Preheat <|bos|> żurek")
    page.wait_for_selector(".piece:has-text('bos')")
    page.locator(".piece").first.click()
    page.wait_for_selector(".ladder li")
    assert page.inner_text(".ladder li >> nth=0").split() == ["bytes", *"Preheat"]
    page.locator("input[type=range]").press("Home")
    assert page.locator(".ladder .later").count() == page.locator(".ladder li").count() - 1
    page.click("role=tab[name=Ids]")
    assert page.inner_text(".token >> nth=0").isdigit()
    page.click("role=tab[name=Bytes]")
    assert page.inner_text(".token >> nth=0") == "50"


@on_view("training")
def test_a_run_is_seen_learning(page: Page, run: Path) -> None:
    page.wait_for_selector(".chart >> nth=3")
    assert "has finished rl" in page.inner_text(".page header")
    (run / "rl" / "stage.json").rename(run / "rl" / "started.json")
    with (run / "metrics.jsonl").open("a") as file:
        now = page.evaluate("() => Date.now() / 1000")
        file.write(json.dumps({"time": now, "stage": "rl", "step": 25, "loss": 0.5, "tokens_per_second": 4321}) + "\n")
    page.wait_for_selector("text=reference is learning: rl")
    assert "4,321" in page.inner_text(".facts")
    (run / "rl" / "started.json").rename(run / "rl" / "stage.json")
    page.locator(".chart-box").first.focus()
    page.keyboard.press("ArrowLeft")
    assert "step" in page.inner_text(".chart-card output >> nth=0")


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_fits_a_phone(browser: Any, url: str, view: str) -> None:
    with opened(browser, url, view, width=360) as page:
        if view == "chat":
            ask(page, "How do I make pancakes?")
        if view == "xray":
            look(page)
            page.click("role=tab[name=Attention]")
            page.wait_for_selector(".head >> nth=15")
        page.wait_for_timeout(300)
        widest = page.evaluate(
            "() => Math.max(document.documentElement.scrollWidth, document.querySelector('#view').scrollWidth)"
        )
        assert widest <= 360
        page.click("#nav a >> nth=0")
        page.click("#open-side")
        page.wait_for_selector("#new:visible")
        page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(browser: Any, url: str, view: str, scheme: str) -> None:
    with opened(browser, url, view, scheme=scheme) as page:
        if view == "chat":
            ask(page, "How do I make pancakes?")
        if view == "tokens":
            page.locator(".piece").first.click()
        if view == "xray":
            look(page)
            for tab in ("Choices", "Attention", "Layers", "Memory", "Time"):
                page.click(f"role=tab[name={tab}]")
                page.wait_for_timeout(700)
                assert serious(page) == [], tab
        if view == "chat":
            page.click("[aria-label='How it answers']")
        page.wait_for_timeout(700)
        assert serious(page) == []


def serious(page: Page) -> list[str]:
    """What axe-core calls serious or critical, with where it is."""
    found = page.evaluate("() => axe.run()")
    return [
        f"{rule['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def test_the_keyboard_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    page.evaluate("() => document.body.focus()")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.locator("textarea").focus()
    page.keyboard.type("What is 12 plus 30?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer .actions")
    for _ in range(30):  # forward from the field, round to the answer's button
        page.keyboard.press("Shift+Tab")
        if page.evaluate("() => document.activeElement.textContent") == "X-ray":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip[tabindex='0']")
    page.locator(".chip[tabindex='0']").focus()
    before = page.evaluate("() => document.activeElement.dataset.i")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert int(page.evaluate("() => document.activeElement.dataset.i")) == int(before) + 1
    page.locator("role=tab[name=Choices]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("role=tab[name=Attention][selected=true]")


def test_what_a_model_writes_stays_text(page: Page) -> None:
    text = "\n\n".join(NASTY)
    found = page.evaluate(
        """async (texts) => {
            const { markdown } = await import("/markdown.js");
            const box = document.createElement("div");
            document.body.append(box);
            for (const text of texts) box.append(...markdown(text));
            const all = [...box.querySelectorAll("*")];
            return {
                tags: [...new Set(all.map((node) => node.localName))],
                names: [...new Set(all.flatMap((node) => node.getAttributeNames()))],
                links: all.filter((node) => node.href).map((node) => new URL(node.href).protocol),
                text: box.textContent,
            };
        }""",
        [*NASTY, text],
    )
    allowed = {"p", "h3", "ul", "ol", "li", "pre", "code", "blockquote", "strong", "em", "a", "hr"}
    assert set(found["tags"]) <= allowed
    assert set(found["names"]) <= {"class", "href", "target", "rel", "tabindex", "start"}
    assert set(found["links"]) <= {"https:"}
    assert "<script>window.pwned = 1</script>" in found["text"]
    parts = [{"type": kind, "text": text} for kind in ("text", "call", "output")]
    answer = {"parts": parts, "tokens": [[1, 0.5, 1]], "provenance": text, "finish": text, "error": text}
    turn = {"question": text, "answers": [answer], "active": 0}
    page.evaluate(
        "(kept) => localStorage.setItem('nanochat.talks', JSON.stringify(kept))",
        [{"id": "x", "title": text, "at": 0, "turns": [turn]}],
    )
    page.reload()
    page.click("#talks li a")
    page.wait_for_selector(".answer")
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.pwned") is None
    assert page.locator("#view img, #view iframe, #view script, #talks img").count() == 0


def test_damaged_memories_do_no_harm(page: Page) -> None:
    for name, value in (
        ("nanochat.talks", "{"),
        ("nanochat.talks", '[1, null, {"id": 3}]'),
        ("nanochat.settings", "7"),
    ):
        page.evaluate("([name, value]) => localStorage.setItem(name, value)", [name, value])
        page.reload()
        page.wait_for_selector(".hello")
    ask(page, "hello")
