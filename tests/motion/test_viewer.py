"""The page that plays motions: what it embeds, what it refuses, and that a browser draws it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hftrainer.motion import skeleton
from hftrainer.render import viewer
from hftrainer.render.viewer import ViewerClip, viewer_html, write_viewer

ASSETS = Path(viewer.__file__).parent / "assets"
WEB = Path(__file__).parents[2] / "tools" / "web"
NASTY = (
    "</script><script>document.body.dataset.hacked = 1</script> \"double\" 'single' & <img src=x onerror=alert(1)> "
    "{{script}} <!-- \\u003c \u2028 日本語 \U0001f57a half a character: "
)


class Page(HTMLParser):
    """What a browser would see: attributes, and the text of script and title elements."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.attributes: list[tuple[str, str, str | None]] = []
        self.scripts: list[str] = []
        self.title = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "title":
            self.title += data

    @property
    def motions(self) -> dict[str, Any]:
        motions: dict[str, Any] = json.loads(self.scripts[0])
        return motions


def walker(frames: int = 40, *, speed: float = 1.2, turn: float = 0.0) -> np.ndarray:
    """A stiff body that glides along an arc: enough for what is embedded and for where bodies are placed."""
    rng = np.random.default_rng(0)
    body = rng.uniform([-0.35, 0.0, -0.2], [0.35, 1.7, 0.2], size=(22, 3))
    body[0] = 0.0, 0.9, 0.0
    seconds = np.arange(frames) / 30
    path = np.stack([turn * seconds**2, 0 * seconds, speed * seconds], axis=-1)
    return body + path[:, None] + 0.02 * np.sin(9 * seconds)[:, None, None]


def unpacked(clip: dict[str, Any]) -> np.ndarray:
    """What web/src/clip.js computes."""
    pelvis = np.frombuffer(base64.b64decode(clip["path"]), "<f4").reshape(clip["frames"], 1, 3)
    steps = np.frombuffer(base64.b64decode(clip["pose"]), "<u2").reshape(clip["frames"], 21, 3)
    return np.concatenate([pelvis, pelvis + np.array(clip["low"]) + steps * np.array(clip["step"])], axis=1)


@pytest.mark.parametrize("away", [0.0, 500.0])
def test_positions_survive_packing(away):
    joints = walker() + np.array([away, 0.0, -away])
    page = Page(viewer_html([ViewerClip(joints.astype(np.float32), "a walk")], title="t"))
    (clip,) = page.motions["clips"]
    assert np.abs(unpacked(clip) - joints).max() < 1e-4  # 0.1 mm, five times better than promised


def test_a_body_without_extent_can_be_packed():
    page = Page(viewer_html([ViewerClip(np.zeros((1, 22, 3)), "")], title="t"))
    assert unpacked(page.motions["clips"][0]).tolist() == np.zeros((1, 22, 3)).tolist()


def test_300_motions_of_10_seconds_stay_small():
    clip = ViewerClip(walker(300), "a prompt of an ordinary length", {"seed": "7", "ended": "by itself"})
    one, two = (len(viewer_html([clip] * count, title="t")) for count in (1, 2))
    assert one + 299 * (two - one) < 20e6


def test_texts_stay_texts():
    clip = ViewerClip(walker(3), NASTY + "\ud800", {"<b>seed</b>": NASTY})
    text = viewer_html([clip], title=NASTY)
    page = Page(text)
    assert text.isascii()
    assert len(page.scripts) == 2  # the motions and the program
    assert page.motions["title"] == NASTY
    assert page.motions["clips"][0]["title"] == NASTY + "\ufffd"
    assert page.motions["clips"][0]["notes"] == {"<b>seed</b>": NASTY}
    assert page.title.startswith("</script><script>")
    assert "<" not in page.scripts[0]
    assert page.scripts[1] == (ASSETS / "viewer.bundle.js").read_text()


def test_nothing_is_loaded_from_outside():
    text = viewer_html([ViewerClip(walker(3), "see http://example.org")], title="t")
    page = Page(text)
    for tag, name, value in page.attributes:
        if name in {"src", "href", "srcset", "action", "data", "poster"}:
            assert (value or "").startswith("data:"), f"<{tag} {name}={value}>"
    template = (ASSETS / "viewer_page.html").read_text()
    assert not re.search(r"https?://|url\(|@import", template)
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and "default-src" in (value or ""))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    addresses = set(re.findall(r"https?://[^\"'`\s)]+", page.scripts[1]))
    assert addresses <= {"http://www.w3.org/1999/xhtml"}  # a namespace, not a place


@pytest.mark.parametrize(
    ("joints", "words"),
    [
        (np.full((4, 22, 3), np.nan), "NaN or infinity first in frame 0"),
        (np.where(np.arange(4)[:, None, None] == 2, np.inf, np.zeros((4, 22, 3))), "first in frame 2"),
        (np.zeros((4, 24, 3)), r"shape \(T, 22, 3\).*got \(4, 24, 3\)"),
        (np.zeros((4, 66)), r"got \(4, 66\)"),
        (np.zeros((0, 22, 3)), "T >= 1"),
        (np.zeros((4, 22, 3), dtype=np.int64), "floating-point metres, got int64"),
    ],
)
def test_unusable_joints_are_refused_by_name(joints, words):
    clips = [ViewerClip(walker(), "fine"), ViewerClip(joints, "a broken jump")]
    with pytest.raises(ValueError, match=r"clip 2 \('a broken jump'\)") as failure:
        viewer_html(clips, title="t")
    assert re.search(words, str(failure.value))


@pytest.mark.parametrize("settings", [{"fps": 0.0}, {"fps": float("nan")}, {"color": "red"}, {"color": "#fff;x:y"}])
def test_unusable_settings_are_refused_by_name(settings):
    with pytest.raises(ValueError, match="clip 1"):
        viewer_html([ViewerClip(walker(), "x", **settings)], title="t")


def test_a_page_needs_a_clip():
    with pytest.raises(ValueError, match="at least one clip"):
        viewer_html([], title="t")


def test_a_failure_leaves_the_old_page(tmp_path):
    target = tmp_path / "new" / "index.html"
    write_viewer(target, [ViewerClip(walker(), "a walk")], title="t")
    before = target.read_bytes()
    with pytest.raises(ValueError, match="clip 1"):
        write_viewer(target, [ViewerClip(walker() * np.nan, "a walk")], title="t")
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["index.html"]


def test_the_bundle_was_made_from_these_sources():
    digest = hashlib.sha256()
    for source in sorted((WEB / "src").iterdir(), key=lambda path: path.name):
        digest.update(source.read_bytes())
    digest.update((WEB / "package-lock.json").read_bytes())
    made_from = re.search(r"Sources: sha256 (\w+)", (ASSETS / "viewer.bundle.js").read_text())
    assert made_from is not None
    assert made_from[1] == digest.hexdigest(), "run `npm ci && npm run build` in tools/web"


def test_the_bundle_carries_the_licence_of_three():
    head = (ASSETS / "viewer.bundle.js").read_text()[:2000]
    assert "three.js authors" in head
    assert "Permission is hereby granted" in head


def test_the_page_knows_our_skeleton():
    source = (WEB / "src" / "skeleton.js").read_text()

    def array(name: str) -> list[Any]:
        found = re.search(rf"const {name} = (\[.*?\]);", source, re.DOTALL)
        assert found is not None
        values: list[Any] = json.loads(re.sub(r",\s*\]", "]", found[1]))
        return values

    assert tuple(array("JOINTS")) == skeleton.JOINTS
    assert tuple(array("PARENTS")) == skeleton.PARENTS


def run_node(program: str) -> Any:
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    done = subprocess.run(
        ["node", "--input-type=module"], input=program,
        capture_output=True, check=True, text=True, timeout=60, cwd=WEB / "src",
    )  # fmt: skip
    return json.loads(done.stdout)


def in_page(clips: list[ViewerClip]) -> str:
    """A program's first lines: the clips as the page reads them."""
    data = Page(viewer_html(clips, title="t")).scripts[0]
    return f"""
        import {{ Clip }} from "./clip.js";
        import {{ sideBySide, aroundPath }} from "./layout.js";
        import {{ fitView }} from "./view.js";
        const clips = {data}.clips.map((packed, index) => new Clip(packed, index));
        """


def test_the_page_reads_what_was_written():
    joints = walker(31)
    program = in_page([ViewerClip(joints, "a walk")])
    program += """
        const between = clips[0].poseAt(0.55, new Float32Array(66));
        const after = clips[0].poseAt(99, new Float32Array(66));
        console.log(JSON.stringify([clips[0].joints, between, after].map((values) => [...values])));
        """
    whole, between, after = (np.array(values).reshape(-1, 22, 3) for values in run_node(program))
    np.testing.assert_allclose(whole, joints, atol=1e-4)
    np.testing.assert_allclose(between[0], joints[16] + 0.5 * (joints[17] - joints[16]), atol=1e-4)
    np.testing.assert_allclose(after[0], joints[-1], atol=1e-4)


def test_bodies_side_by_side_never_share_ground():
    paths = [(1.5, 0.6), (0.0, 0.0), (1.2, -0.8), (2.5, 0.0), (-1.0, 0.3), (0.3, 0.0), (1.0, 1.0), (1.4, -0.4)]
    clips = [ViewerClip(walker(90, speed=speed, turn=turn), "x") for speed, turn in paths]
    offsets = run_node(in_page(clips) + "console.log(JSON.stringify(sideBySide(clips)));")
    grounds = [clip.joints[..., [0, 2]] + offset for clip, offset in zip(clips, offsets, strict=True)]
    for number, one in enumerate(grounds):
        for other in grounds[:number]:
            gap = np.linalg.norm(one.reshape(-1, 1, 2)[::7] - other.reshape(1, -1, 2)[:, ::7], axis=-1)
            assert gap.min() > 0.2


def test_the_first_view_shows_the_whole_path():
    program = in_page([ViewerClip(walker(120, turn=0.5), "x")])
    program += """
        const [wide, high] = [0.3, 0.2];
        const toCamera = [0.3, 0.3, Math.sqrt(0.82)];
        const points = aroundPath(clips[0], [2, -1]);
        const { target, distance } = fitView(points, toCamera, wide, high);
        const place = target.map((value, axis) => value + distance * toCamera[axis]);
        console.log(JSON.stringify({ points, place }));
        """
    seen = run_node(program)
    back = np.array([0.3, 0.3, 0.82**0.5])
    right = np.cross([0, 1, 0], back) / np.linalg.norm(np.cross([0, 1, 0], back))
    away = np.array(seen["points"]) - seen["place"]
    depth = -away @ back
    slopes = np.stack([np.abs(away @ right) / depth / 0.3, np.abs(away @ np.cross(back, right)) / depth / 0.2])
    assert depth.min() > 0
    assert slopes.max() == pytest.approx(1.0, abs=1e-3)  # everything is in the picture, and it could not be larger


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "state"), [((), "playing"), (("--disable-3d-apis",), "fallback")])
def test_a_browser_draws_the_page(tmp_path, flags, state):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    page = tmp_path / "index.html"
    write_viewer(page, [ViewerClip(walker(), NASTY + "\ud800"), ViewerClip(walker(9), "another")], title=NASTY)
    done = subprocess.run(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--disable-background-networking", "--no-first-run", "--window-size=400,300",
            "--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'profile'}", *flags,
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True, check=True, text=True, timeout=300,
    )  # fmt: skip
    body = re.search(r"<body[^>]*>", done.stdout)
    assert body is not None
    assert f'data-state="{state}"' in body[0]
    assert "data-hacked" not in body[0]
    labels = re.findall(r'<span class="label-text">([^<]*)</span>', done.stdout)
    assert len(labels) == 2
    assert labels[1] == "another"


def test_contacts_files_and_groups_reach_the_page():
    standing = np.zeros((31, 4), bool)
    standing[10:, [0, 3]] = True
    clip = ViewerClip(walker(31), "a walk", contacts=standing, files={"glb": "a b.glb"}, group="walks")
    program = in_page([clip])
    program += """
        const [clip] = clips;
        console.log(JSON.stringify([clip.contactsAt(0), clip.contactsAt(0.9), clip.files, clip.group]));
        """
    assert run_node(program) == [0, 0b1001, [["glb", "a b.glb"]], "walks"]
    with pytest.raises(ValueError, match=r"contacts must have shape \(31, 4\), got \(30, 4\)"):
        viewer_html([ViewerClip(walker(31), "x", contacts=standing[1:])], title="t")


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("#show=1,3&t=2.5", {"shown": [0, 2], "time": 2.5}),
        ("#show=3,3,99,x", {"shown": [2], "time": 0}),
        ("#t=2", None),
        ("#show=9", None),
        ("", None),
    ],
)
def test_links_lead_to_a_moment(link, found):
    program = 'import { readMoment } from "./moment.js";'
    assert run_node(program + f"console.log(JSON.stringify(readMoment({json.dumps(link)}, 4)));") == found


def test_phones_get_short_rows():
    program = 'import { rowFor } from "./layout.js"; console.log(JSON.stringify([0.46, 1, 1.8].map(rowFor)));'
    assert run_node(program) == [2, 3, 6]
