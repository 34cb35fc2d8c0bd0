"""The web page as people use it, in headless Chromium against the fake server."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.serve.browsing import PATIENCE, Visit, chromium, fake_server, real_server

pytestmark = pytest.mark.slow
AXE = REPOSITORY / "tools" / "web" / "node_modules" / "axe-core" / "axe.min.js"
RUN_AXE = "axe.run().then((found) => found.violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with fake_server() as served:
        yield served


@pytest.fixture
def visit(browser, address) -> Iterator[Any]:
    """Opens the page; afterwards nothing may have gone wrong in it, and nothing come from elsewhere."""
    visits: list[Visit] = []

    def open_page(**context: Any) -> Any:
        visits.append(Visit(browser, address, **context))
        return visits[-1].ready()

    yield open_page
    for one in visits:
        one.context.close()
        assert one.errors == []
        assert [url for url in one.requests if not url.startswith((address, "blob:", "data:"))] == []


def says(page: Any, words: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#status")).to_contain_text(words, timeout=PATIENCE)


def frames(page: Any) -> tuple[int, int]:
    """The frame that is seen, and how many there are so far."""
    found = re.search(r"frame (\d+) / (\d+)", page.text_content("[data-part=frame]"))
    assert found is not None
    return int(found[1]), int(found[2])


def jobs(address: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{address}/v1/jobs") as answer:
        told: list[dict[str, Any]] = json.load(answer)["jobs"]
    return told


def type_and_make(page: Any, prompt: str) -> None:
    page.fill("#prompt", prompt)
    page.press("#prompt", "Enter")


def test_a_motion_plays_while_it_is_made(visit, address):
    page = visit()
    page.fill("#seconds", "3")
    type_and_make(page, "a person holds on")
    page.wait_for_selector("#welcome", state="hidden")
    says(page, "Making the motion")
    assert 0 < frames(page)[1] < 90  # frames are seen before all are made
    urllib.request.urlopen(f"{address}/release").close()
    says(page, "Done: 1 motion, 3.0 s")
    assert frames(page)[1] == 90
    assert page.text_content("#now-title") == "a person holds on"
    assert jobs(address)[0]["request"] == {
        "prompt": "a person holds on", "seconds": 3, "count": 1, "seed": 0, "model": "walker",
    }  # fmt: skip
    seen = frames(page)[0]
    from playwright.sync_api import expect

    expect(page.locator("[data-part=frame]")).not_to_contain_text(f"frame {seen} ", timeout=PATIENCE)


def test_every_format_is_downloaded(visit):
    page = visit()
    type_and_make(page, "a person waves: both hands!")
    says(page, "Done")
    page.click("#now-actions button")
    formats = page.locator("#formats button").evaluate_all("all => all.map((one) => one.dataset.format)")
    assert set(formats) >= {"glb", "bvh", "npz", "csv", "usd", "mp4", "html"}
    for name, ending in (("glb", "glb"), ("amass", "amass"), ("mp4", "mp4")):
        with page.expect_download() as waiting:
            page.click(f"[data-format={name}]")
        assert waiting.value.suggested_filename == f"a-person-waves-both-hands-seed-0.{ending}"
        assert waiting.value.path().read_text().endswith(f"motion.{ending}")
    page.keyboard.press("Escape")
    assert not page.is_visible("#downloads")


def test_a_motion_is_cancelled(browser):
    with fake_server() as served:
        cancel_half_way(Visit(browser, served).ready(), served)


def cancel_half_way(page: Any, address: str) -> None:
    page.fill("#seconds", "10")
    type_and_make(page, "a person holds on and on")
    page.wait_for_selector("#welcome", state="hidden")
    page.click("#cancel")
    says(page, "Cancelled")
    assert jobs(address)[0]["status"] == "cancelled"
    assert page.is_visible("#make")
    assert page.text_content(".row .facts").startswith("cancelled")
    assert 0 < frames(page)[1] < 300  # what was made stays


def test_a_timeline_is_edited_and_made(visit, address):
    page = visit()
    page.click("#tab-timeline")
    page.fill("[aria-label='Text of part 1']", "a person sits down")
    page.fill("[aria-label='Seconds of part 1']", "2")
    page.click("#part-add")
    page.keyboard.type("a person jumps")  # the new part has the focus
    page.click("[aria-label='Move part 3 up']")
    page.focus("[aria-label='Length of part 2']")
    page.keyboard.press("ArrowLeft")
    box = page.locator("[aria-label='Length of part 1']").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 85, box["y"] + 20, steps=4)
    page.mouse.up()
    page.click("#make")
    says(page, "Done: 1 motion")
    parts = jobs(address)[0]["request"]["timeline"]
    assert [part["prompt"] for part in parts] == ["a person sits down", "a person jumps", "a person waves"]
    assert parts[0]["seconds"] > 2  # dragged
    assert parts[1]["seconds"] == 1.5  # by keys
    assert page.text_content("#parts-total") == f"{sum(part['seconds'] for part in parts):.1f} s in total"
    page.wait_for_selector(".playhead", state="visible")
    page.click("[aria-label='Remove part 2']")
    assert page.locator(".part").count() == 2


def test_a_timeline_without_a_text_is_not_sent(visit, address):
    page = visit()
    before = len(jobs(address))
    page.click("#tab-timeline")
    page.click("#part-add")
    page.click("#make")
    says(page, "Part 3 has no text.")
    assert len(jobs(address)) == before


def test_what_is_typed_live_comes_next(visit):
    page = visit()
    page.click("#tab-live")
    page.fill("#live-say", "a person walks")
    page.keyboard.press("Enter")
    page.wait_for_selector(".label-text >> text=a person walks")
    page.keyboard.type("a person runs")  # the field still has the focus
    page.keyboard.press("Enter")
    page.wait_for_selector(".label-text >> text=a person runs")
    says(page, "Now: a person runs")
    assert page.text_content("#now-title") == "a person runs"
    assert page.locator("#live-log li").all_text_contents() == ["a person runs", "a person walks"]
    page.click("#live-stop")
    says(page, "Live motion stopped")
    made = frames(page)[1]
    assert made >= 10
    assert page.text_content("#live-send") == "Start"


@pytest.mark.parametrize(
    "prompt",
    [
        "<img src=x onerror=alert(1)><script>alert(2)</script>",
        "../../etc/passwd\" onmouseover='alert(3)' x=\"{{stage}} &lt;b&gt;",
        "\u202e\u2066 עברית 日本語 \U0001f57a",
    ],
)
def test_a_prompt_stays_a_text(visit, prompt):
    page = visit()
    type_and_make(page, prompt)
    says(page, "Done")
    assert page.text_content("#now-title") == prompt
    assert page.text_content(".row .prompt") == prompt
    assert page.text_content(".label-text") == prompt
    assert page.locator("img, main script, [onmouseover], #history b").count() == 0
    page.click("#now-actions button")
    assert page.text_content("#downloads-of") == prompt
    with page.expect_download() as waiting:
        page.click("[data-format=bvh]")
    assert re.fullmatch(r"[\w-]+-seed-0\.bvh", waiting.value.suggested_filename)


def test_a_refusal_is_a_sentence(visit):
    page = visit()
    type_and_make(page, "walk " * 2000)
    says(page, "A prompt may have 300 characters")
    assert page.is_visible("#make")
    type_and_make(page, " ")
    says(page, "Type what the person does first.")


def test_a_failure_is_a_sentence(visit):
    page = visit()
    type_and_make(page, "a person will break")
    says(page, "It failed: The model ran out of memory.")
    assert page.is_visible("#make")


def test_an_unknown_action_is_said_and_others_are_offered(visit):
    page = visit()
    type_and_make(page, "a person will yodel")
    page.wait_for_selector("#warning", state="visible")
    assert "nothing like \u201ca person will yodel\u201d" in page.text_content("#warning")
    page.click("#warning >> text=wave")
    assert page.input_value("#prompt") == "a person waves"
    type_and_make(page, "a person walks")
    says(page, "Done")
    assert not page.is_visible("#warning")


def test_words_of_the_model_help(visit):
    page = visit()
    page.click("#examples button >> nth=1")
    assert page.input_value("#prompt") == "a person runs in a circle"
    page.click("#vocabulary summary")
    page.fill("#vocabulary-search", "ki")
    assert page.locator("#vocabulary-list button").all_text_contents() == ["kick 33"]
    page.click("#vocabulary-list button")
    assert page.input_value("#prompt") == "a person runs in a circle and kicks"
    page.select_option("#model", "other")
    page.wait_for_selector("#vocabulary", state="hidden")
    page.click("#sampling summary")
    assert page.locator("#sliders label").all_text_contents() == ["Temperature", "Guidance"]


def test_sampling_is_sent_when_it_was_moved(visit, address):
    page = visit()
    page.click("#sampling summary")
    page.focus("#slider-temperature")
    page.keyboard.press("ArrowLeft")
    page.click("#dice")
    seed = int(page.input_value("#seed"))
    type_and_make(page, "a person walks")
    says(page, "Done")
    request = jobs(address)[0]["request"]
    assert (request["temperature"], request["seed"]) == (0.95, seed)
    assert "top_p" not in request
    page.click("text=model's default")
    assert page.input_value("#slider-temperature") == "1"


def test_motions_are_compared(visit):
    page = visit()
    type_and_make(page, "a person walks\na person runs")  # two lines are two prompts
    says(page, "Done: 2 motions")
    assert page.locator(".label").count() == 2
    page.click("text=Overlaid")
    assert page.get_attribute("[data-part=overlay]", "aria-pressed") == "true"
    page.click("[aria-label='Show only the last']")
    assert page.locator(".label-text").all_text_contents() == ["a person runs"]
    page.hover(".row >> nth=1")
    page.click(".row >> nth=1 >> [title=Compare]")
    assert page.locator(".label-text").all_text_contents() == ["a person walks", "a person runs"]


def test_the_history_stays_and_is_used_again(visit, address):
    page = visit()
    page.fill("#seed", "7")
    type_and_make(page, "a person walks away")
    says(page, "Done")
    page.reload()
    page.wait_for_selector("body[data-state=ready]", state="attached")
    page.click(".row .only")
    page.wait_for_selector("#now-title >> text=a person walks away")
    page.hover(".row")
    page.click(".row >> nth=0 >> [title='Use this request again']")
    assert (page.input_value("#prompt"), page.input_value("#seed")) == ("a person walks away", "7")
    before = len(jobs(address))
    page.click(".row >> nth=0 >> [title=Remove]")
    says(page, "Removed.")
    assert len(jobs(address)) == before - 1


def test_a_page_that_is_loaded_again_finds_its_motion(browser):
    with fake_server() as served:
        reload_half_way(Visit(browser, served).ready())


def reload_half_way(page: Any) -> None:
    page.fill("#seconds", "6")
    type_and_make(page, "a person holds on")
    page.wait_for_selector("#welcome", state="hidden")
    page.reload()
    page.wait_for_selector("#cancel", state="visible")
    page.wait_for_selector("#now-title >> text=a person holds on")
    page.click("#cancel")
    says(page, "Cancelled")


def test_everything_is_done_by_keyboard(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(2):  # past the tabs, of which one takes the focus
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("a person walks")
    page.keyboard.press("Enter")
    says(page, "Done")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#pane-timeline")
    page.keyboard.press("End")
    assert page.is_visible("#pane-live")
    page.focus(".row .only")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#downloads", state="visible")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.title") == "Download"
    page.focus("[data-part=scrub]")
    page.keyboard.press("End")
    page.keyboard.press("l")
    assert page.get_attribute("[data-part=loop]", "aria-pressed") == "false"
    page.focus("#prompt") if page.is_visible("#prompt") else page.focus("#live-say")
    page.keyboard.type("l")  # typed, and no command
    assert page.get_attribute("[data-part=loop]", "aria-pressed") == "false"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, scheme):
    """Deque's checks of contrast, names, roles and landmarks, in every state of the page."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed (npm ci in tools/web)")
    page = visit(color_scheme=scheme, bypass_csp=True)
    page.evaluate(AXE.read_text(encoding="utf-8"))

    def check(state: str) -> None:
        assert page.evaluate(RUN_AXE) == [], state

    check("welcome")
    page.click("#sampling summary")
    page.click("#vocabulary summary")
    check("open details")
    type_and_make(page, "a person walks\na person will yodel")
    says(page, "Done: 2 motions")
    page.wait_for_selector("#warning", state="visible")
    check("compared, with a warning")
    page.click(".row .only")
    page.click("#now-actions button")
    check("downloads")
    page.keyboard.press("Escape")
    page.click("#tab-timeline")
    check("timeline")
    page.click("#tab-live")
    check("live")


def test_a_phone_is_enough(visit):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    for tab in ("timeline", "live", "prompt"):
        page.tap(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.fill("#prompt", "a person walks a very long way, and then another, and turns around")
    page.fill("#count", "2")
    page.tap("#make")
    says(page, "Done")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    small = page.locator("button:visible").evaluate_all("""all => all
        .filter((one) => Math.min(one.offsetWidth, one.offsetHeight) < 24)
        .map((one) => one.outerText || one.title)""")
    assert small == []  # WCAG 2.5.8
    top = page.locator("#player").bounding_box()["y"]
    page.locator("#history .row").last.scroll_into_view_if_needed()
    assert page.locator("#player").bounding_box()["y"] <= top  # the figure stays in sight
    assert page.locator("#player").bounding_box()["y"] >= 0


def test_dark_follows_the_system_until_it_is_chosen(visit):
    page = visit(color_scheme="dark")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.emulate_media(color_scheme="light")
    page.wait_for_selector("html[data-theme=light]", state="attached")
    page.click("#theme")
    assert page.evaluate(theme) == "dark"
    page.reload()
    page.wait_for_selector("body[data-state=ready]", state="attached")
    assert page.evaluate(theme) == "dark"


def test_less_motion_where_it_is_asked_for(visit):
    page = visit(reduced_motion="reduce")
    type_and_make(page, "a person walks")
    says(page, "Done")
    assert page.get_attribute("[data-part=play]", "aria-pressed") == "false"
    assert frames(page)[0] == 1


def test_a_server_that_is_gone_is_a_sentence(browser):
    with fake_server() as served:
        page = Visit(browser, served).ready()
    type_and_make(page, "a person walks")
    says(page, "The server does not answer.")
    assert page.is_visible("#make")


def test_a_token_is_asked_for_and_not_kept_in_the_address(browser):
    with fake_server("s3cret") as served:
        visit = Visit(browser, served)
        visit.page.wait_for_selector("#token", state="visible")
        visit.page.fill("#token-value", "wrong")
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_selector("#token", state="visible")
        visit.page.fill("#token-value", "s3cret")
        visit.page.keyboard.press("Enter")
        page = visit.ready()
        type_and_make(page, "a person walks")
        says(page, "Done")
        linked = Visit(browser, served, "/?token=s3cret")
        assert linked.ready().url == f"{served}/"
        linked.page.click("#tab-live")
        linked.page.fill("#live-say", "a person walks")
        linked.page.keyboard.press("Enter")
        linked.page.wait_for_selector(".label-text >> text=a person walks")


def test_the_page_and_the_server_fit(browser, tmp_path):
    """The whole way with the small model: typed, streamed, downloaded; a timeline; a live session; the history."""
    with real_server(tmp_path) as served:
        visit = Visit(browser, served)
        page = visit.ready()
        page.fill("#seconds", "2")
        type_and_make(page, "a person walks forward")
        says(page, "Done: 1 motion, 2.0 s")
        page.click("#now-actions button")
        with page.expect_download() as waiting:
            page.click("[data-format=glb]")
        assert waiting.value.path().read_bytes().startswith(b"glTF")
        page.keyboard.press("Escape")
        page.click("#tab-timeline")
        page.click("#make")
        says(page, "Done: 1 motion, 5.0 s")
        page.click("#tab-live")
        page.fill("#live-say", "a person walks forward")
        page.keyboard.press("Enter")
        page.wait_for_selector(".label-text >> text=a person walks forward")
        page.keyboard.type("a person waves")
        page.keyboard.press("Enter")
        page.wait_for_selector(".label-text >> text=a person waves")
        page.click("#live-stop")
        page.reload()
        page.wait_for_selector("body[data-state=ready]", state="attached")
        assert page.locator(".row").count() == 2
        page.click(".row .only >> nth=1")
        page.wait_for_selector("#now-title >> text=a person walks forward")
        assert frames(page)[1] == 60
        assert visit.errors == []


HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script> {{stage}} \u2028 <!-- &lt;b&gt; ${alert(3)}"


def test_a_prompt_stays_a_text_in_the_page_of_a_motion(browser, tmp_path):
    with real_server(tmp_path) as served:
        body = json.dumps({"prompt": HOSTILE, "seconds": 0.5}).encode()
        request = urllib.request.Request(f"{served}/v1/motions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            motion = json.load(answer)["motions"][0]["id"]
        visit = Visit(browser, served, f"/v1/motions/{motion}/viewer")
        visit.page.wait_for_selector(".label-text", state="attached")
        assert visit.page.text_content(".label-text") == HOSTILE
        assert visit.page.locator("img").count() == 0
        assert visit.errors == []
