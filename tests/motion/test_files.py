"""Every file shows the same motion, and those that can be read give it back."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import hftrainer
from hftrainer.data.synthetic.motions import make_motion
from hftrainer.motion.body import BodyMotion, measure, smpl_body
from hftrainer.motion.edit import in_place
from hftrainer.motion.fit import fit, pose
from hftrainer.motion.io.glb import save_glb, save_vrma
from hftrainer.motion.io.gltf import GltfFile
from hftrainer.motion.io.npz import SMPLX_PELVIS, TO_Z_UP, amass_arrays
from hftrainer.motion.io.read_body import read_motions
from hftrainer.motion.io.source import MotionFileError
from hftrainer.motion.mannequin import mannequin
from hftrainer.motion.representation import motion272
from hftrainer.motion.rigs import find_rig, onto_rig, retarget, rig_names, straight_arms
from hftrainer.motion.rotation import axis_angle_to_matrix
from hftrainer.motion.skeleton import MIRROR, forward_kinematics

WALK, WAVE = (make_motion(kind, 60, 3).astype(np.float64) for kind in ("turn-left", "wave"))
BODY = measure([(motion272.to_joints(WALK), motion272.to_rotations(WALK)[0])], "walker")
MOTION, OTHER = pose(WALK, BODY), pose(WAVE, BODY)
WEB = Path(__file__).parents[2] / "tools" / "web"


# --- the mannequin ---


def test_the_mannequin_stands_on_the_floor_and_is_symmetric():
    for body in (BODY, smpl_body()):
        figure = mannequin(body)
        assert figure.points[:, 1].min() == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose(figure.weights.sum(axis=1), 1)
        assert (figure.weights >= 0).all()
        assert (np.count_nonzero(figure.weights, axis=1) <= 4).all()
        left, right = (np.unique(figure.faces[side]) for side in ("left", "right"))
        mirrored = {tuple(row) for row in np.round(figure.points[right] * [-1, 1, 1], 6) + 0.0}
        assert {tuple(row) for row in np.round(figure.points[left], 6) + 0.0} == mirrored
        for faces in figure.faces.values():  # closed and seen from outside
            a, b, c = (figure.points[faces[:, k]] for k in range(3))
            assert (np.einsum("ij,ij->i", a, np.cross(b, c)) / 6).sum() > 0


def test_a_posed_mannequin_carries_its_points_along():
    figure = mannequin(BODY)
    still = BodyMotion(np.tile(np.eye(3), (2, 22, 1, 1)), np.tile(BODY.rest_joints[0], (2, 1)), BODY)
    np.testing.assert_allclose(figure.posed(still.rotations, still.root)[1], figure.points, atol=1e-9)
    moved = figure.posed(MOTION.rotations, MOTION.root)
    head = figure.weights[:, 15] == 1
    spread = np.linalg.norm(moved[:, head] - MOTION.joints[:, None, 15], axis=-1)
    np.testing.assert_allclose(spread, np.broadcast_to(spread[0], spread.shape), atol=1e-9)  # the head is rigid
    assert len(MIRROR) == figure.weights.shape[1]


# --- GLB ---


def test_several_motions_are_animations_of_one_file(tmp_path):
    path = tmp_path / "both.glb"
    save_glb(path, [MOTION, OTHER], titles=["walk", "walk"])
    again = read_motions(path)
    assert [name for name, _ in again] == ["walk", "walk (2)"]
    for (_, read), motion in zip(again, (MOTION, OTHER), strict=True):
        assert read.fps == motion.fps
        assert np.abs(read.joints - motion.joints).max() < 1e-5  # float32 quaternions
    document = GltfFile(path).json
    assert {material["name"] for material in document["materials"]} == {"left", "right", "shirt", "trousers"}


@pytest.mark.parametrize("root_motion", [False, True])
@pytest.mark.parametrize("rig", rig_names())
def test_every_rig_reads_back(tmp_path, rig, root_motion):
    save_glb(tmp_path / "a.glb", [MOTION], rig=rig, root_motion=root_motion)
    ((_, read),) = read_motions(tmp_path / "a.glb")
    assert np.abs(read.joints - onto_rig(MOTION, find_rig(rig)).joints).max() < 1e-5
    assert GltfFile(tmp_path / "a.glb").json["nodes"][1]["name"] == find_rig(rig).names[0]


def test_a_skin_at_rest_leaves_the_mesh_alone(tmp_path):
    save_glb(tmp_path / "a.glb", [MOTION])
    file = GltfFile(tmp_path / "a.glb")
    document = file.json
    inverse = file.accessor(document["skins"][0]["inverseBindMatrices"]).reshape(-1, 4, 4)
    place = np.zeros((len(inverse), 3))
    for bone, node in enumerate(document["nodes"][: len(inverse)]):
        place[bone] += node["translation"]
        for child in node.get("children", []):
            place[child] += place[bone]
    np.testing.assert_allclose(inverse[:, 3, :3], -place, atol=1e-6)
    assert place[8 + 3, 1] == pytest.approx(0, abs=1e-6)  # toes on the floor


def test_vrma_names_the_humanoid_bones_in_a_strict_t_pose(tmp_path):
    save_vrma(tmp_path / "a.vrma", MOTION)
    document = GltfFile(tmp_path / "a.vrma").json
    bones = document["extensions"]["VRMC_vrm_animation"]["humanoid"]["humanBones"]
    assert set(bones) >= {"hips", "spine", "chest", "upperChest", "head", "leftUpperArm", "rightToes"}
    arm = document["nodes"][bones["leftLowerArm"]["node"]]["translation"]
    assert arm[1] == arm[2] == 0
    assert arm[0] > 0.1
    moved = [channel["target"] for channel in document["animations"][0]["channels"]]
    assert [t["node"] for t in moved if t["path"] == "translation"] == [bones["hips"]["node"]]


def test_motions_of_different_bodies_do_not_share_a_file(tmp_path):
    with pytest.raises(ValueError, match="different bodies cannot share one file"):
        save_glb(tmp_path / "a.glb", [MOTION, pose(WAVE, smpl_body())])
    with pytest.raises(ValueError, match="at least one motion"):
        save_glb(tmp_path / "a.glb", [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b"hello" + b, "not a binary glTF"),
        (lambda b: b[:2000], "cut short"),
        (lambda b: b[:12], "cut short"),
        (lambda b: b.replace(b'"pelvis"', b'"pelviz"'), "names match none of the known skeletons"),
    ],
)
def test_damaged_glbs_are_refused(tmp_path, change, words):
    path = tmp_path / "a.glb"
    save_glb(path, [MOTION])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(MotionFileError, match=words):
        read_motions(path)


def test_khronos_validator_finds_nothing(tmp_path):
    if not shutil.which("node") or not (WEB / "node_modules" / "gltf-validator").is_dir():
        pytest.skip("needs node and `npm ci` in tools/web")
    save_glb(tmp_path / "a.glb", [MOTION, OTHER])
    save_glb(tmp_path / "b.glb", [MOTION], rig="mixamo", root_motion=True)
    save_vrma(tmp_path / "c.vrma", MOTION)
    program = """
        import validator from "gltf-validator"; import { readFileSync } from "node:fs";
        const found = [];
        for (const name of process.argv.slice(1)) {
          const report = await validator.validateBytes(new Uint8Array(readFileSync(name)));
          found.push([report.issues.numErrors, report.issues.numWarnings]);
        }
        console.log(JSON.stringify(found));"""
    names = [str(tmp_path / name) for name in ("a.glb", "b.glb", "c.vrma")]
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program, *names],
        cwd=WEB, check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout) == [[0, 0]] * 3


@pytest.mark.slow
def test_three_js_plays_the_file_in_a_browser(tmp_path):
    """A page with three.js and the file in it: bones, skin and animation as a web developer gets them."""
    chromium = shutil.which("chromium")
    if not chromium or not (WEB / "node_modules" / "three").is_dir():
        pytest.skip("needs chromium and `npm ci` in tools/web")
    save_glb(tmp_path / "a.glb", [MOTION, OTHER], titles=["walk", "wave"])
    (tmp_path / "main.js").write_text("""
        import { AnimationMixer, PerspectiveCamera, Scene, Vector3, WebGLRenderer } from "three";
        import { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
        import file from "./a.glb";
        new GLTFLoader().parse(file.buffer, "", (gltf) => {
          const scene = new Scene().add(gltf.scene);
          const mixer = new AnimationMixer(gltf.scene);
          mixer.clipAction(gltf.animations[0]).play();
          mixer.setTime(1);
          const camera = new PerspectiveCamera(40, 1, 0.1, 50);
          camera.position.set(0, 1, 6);
          new WebGLRenderer().render(scene, camera);
          const wrist = gltf.scene.getObjectByName("left_wrist").getWorldPosition(new Vector3());
          document.body.dataset.found = JSON.stringify([gltf.animations.map(({ name }) => name), wrist.toArray()]);
        });""")
    command = ["npx", "esbuild", str(tmp_path / "main.js"), "--bundle", "--loader:.glb=binary"]
    command += [f"--outfile={tmp_path / 'page.js'}", "--log-level=error"]
    paths = {**os.environ, "NODE_PATH": str(WEB / "node_modules")}
    subprocess.run(command, cwd=WEB, check=True, timeout=120, env=paths)
    (tmp_path / "page.html").write_text('<body><script src="page.js"></script></body>')
    flags = "--headless=new --no-sandbox --disable-gpu-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader "
    flags += "--disable-background-networking --no-first-run --virtual-time-budget=5000 --dump-dom"
    done = subprocess.run(
        [chromium, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stdout[:500]
    names, wrist = json.loads(html.unescape(found[1]))
    assert names == ["walk", "wave"]
    np.testing.assert_allclose(wrist, MOTION.joints[30, 20], atol=1e-4)


# --- other files ---


def test_our_npz_reads_back(tmp_path):
    hftrainer.export(MOTION, tmp_path / "a.npz")
    ((_, read),) = read_motions(tmp_path / "a.npz")
    assert np.abs(read.joints - MOTION.joints).max() < 1e-5
    assert read.fps == MOTION.fps


def test_amass_arrays_are_what_a_body_model_expects():
    """SMPL-X as its papers have it, with the rest joints of `smpl_body`: no code of the writer is used."""
    arrays = amass_arrays(MOTION)
    assert {"root_orient", "pose_body", "trans", "betas", "gender", "mocap_frame_rate"} <= set(arrays)
    assert arrays["poses"].shape == (60, 165)
    assert arrays["pose_body"].shape == (60, 63)
    assert arrays["betas"].shape == (16,)
    assert str(arrays["gender"]) == "neutral"
    assert float(arrays["mocap_frame_rate"].item()) == 30
    vectors = np.concatenate([arrays["root_orient"], arrays["pose_body"]], axis=1).reshape(60, 22, 3)
    pelvis = arrays["trans"] + SMPLX_PELVIS
    joints = forward_kinematics(axis_angle_to_matrix(vectors.astype(np.float64)), pelvis, smpl_body().offsets)
    want = retarget(MOTION, smpl_body()).joints @ TO_Z_UP.T
    assert np.abs(joints - want).max() < 1e-5
    assert joints[..., 2].min() > -0.01  # Z is up, the floor is at 0
    assert joints[:, 15, 2].mean() > 1.3


@pytest.mark.parametrize("options", [{"raw": True}, {"in_place": True}])
@pytest.mark.parametrize(("ending", "body"), [("amass.npz", smpl_body()), ("vrma", straight_arms(BODY))])
def test_feet_of_raw_and_in_place_files_are_not_locked_again(tmp_path, options, ending, body):
    hftrainer.export(MOTION, tmp_path / f"a.{ending}", **options)
    arrays = read_motions(tmp_path / f"a.{ending}") if ending == "amass.npz" else None
    shown = in_place(MOTION) if "in_place" in options else MOTION
    want, locked = (retarget(shown, body, lock=lock) for lock in (False, True))
    assert np.abs(want.rotations - locked.rotations).max() > 1e-3  # locking would change the legs
    if arrays is not None:
        assert np.abs(arrays[0][1].joints - want.joints).max() < 1e-5  # float32
    else:
        save_vrma(tmp_path / "want.vrma", want, lock=False)
        np.testing.assert_allclose(_turns(tmp_path / "a.vrma"), _turns(tmp_path / "want.vrma"), atol=1e-6)


def _turns(path):
    file = GltfFile(path)
    document = file.json
    outputs = [sampler["output"] for sampler in document["animations"][0]["samplers"]]
    return np.concatenate([np.ravel(file.accessor(output)) for output in outputs])


def test_amass_reads_back(tmp_path):
    hftrainer.export(MOTION, tmp_path / "a.amass.npz")
    ((_, read),) = read_motions(tmp_path / "a.amass.npz")
    assert np.abs(read.joints - retarget(MOTION, smpl_body()).joints).max() < 1e-5


@pytest.mark.parametrize("options", [{}, {"up": "z"}, {"up": "z", "root_motion": True}])
@pytest.mark.parametrize("unit", ["m", "cm", "mm", "inch"])
def test_our_bvh_reads_back_in_any_unit(tmp_path, unit, options):
    hftrainer.export(MOTION, tmp_path / "a.bvh", unit=unit, **options)
    ((_, read),) = read_motions(tmp_path / "a.bvh")
    assert np.abs(read.joints - MOTION.joints).max() < 1e-4


@pytest.mark.parametrize("root_motion", [False, True])
@pytest.mark.parametrize("unit", ["m", "cm", "mm", "inch"])
def test_our_glb_reads_back_in_any_unit(tmp_path, unit, root_motion):
    hftrainer.export(MOTION, tmp_path / "a.glb", unit=unit, root_motion=root_motion)
    ((_, read),) = read_motions(tmp_path / "a.glb")
    assert np.abs(read.joints - MOTION.joints).max() < 1e-5  # float32 quaternions


def test_csv_has_names_and_numbers(tmp_path):
    hftrainer.export(MOTION, tmp_path / "a.csv")
    table = np.genfromtxt(tmp_path / "a.csv", delimiter=",", names=True)
    assert len(table) == 60
    np.testing.assert_allclose(table["left_wrist_y"], MOTION.joints[:, 20, 1], rtol=1e-5)
    np.testing.assert_allclose(table["time"][-1], 59 / 30, rtol=1e-5)


def test_usd_has_the_skeleton_and_its_motion(tmp_path):
    usd = pytest.importorskip("pxr.Usd", reason="pip install usd-core")
    skel = pytest.importorskip("pxr.UsdSkel")
    hftrainer.export(MOTION, tmp_path / "a.usda")
    stage = usd.Stage.Open(str(tmp_path / "a.usda"))
    cache = skel.Cache()
    root = skel.Root(stage.GetPrimAtPath("/person"))
    cache.Populate(root, usd.TraverseInstanceProxies())
    query = cache.GetSkelQuery(skel.Skeleton(stage.GetPrimAtPath("/person/skeleton")))
    found = np.array(query.ComputeJointSkelTransforms(usd.TimeCode(30)))[1:, 3, :3]
    assert np.abs(found - MOTION.joints[30]).max() < 1e-3  # half-precision is not used for places


def test_export_takes_arrays_files_and_lists(tmp_path):
    hftrainer.export(WALK.astype(np.float32), tmp_path / "a.bvh", body=BODY)
    hftrainer.export(tmp_path / "a.bvh", tmp_path / "b.glb", fps=60, in_place=True)
    ((_, read),) = read_motions(tmp_path / "b.glb")
    assert read.fps == pytest.approx(60, abs=0.01)
    hftrainer.export([MOTION, OTHER, tmp_path / "a.bvh"], tmp_path / "c.glb")  # the file's bones are rounded
    assert len(read_motions(tmp_path / "c.glb")) == 3


@pytest.mark.parametrize(
    ("motion", "name", "options", "error", "words"),
    [
        ([], "a.glb", {}, ValueError, "the list is empty"),
        ([MOTION, OTHER], "a.bvh", {}, ValueError, "holds one motion, got 2"),
        (MOTION, "a.fbx", {}, ValueError, "cannot write .fbx; endings are .npz"),
        (MOTION, "a.bvh", {"skeleton": "mixmo"}, ValueError, "did you mean 'mixamo'"),
        (MOTION, "a.bvh", {"unit": "feet"}, ValueError, "no unit 'feet'"),
        (MOTION, "a.bvh", {"fps": 0}, ValueError, "between 1 and 480"),
        (
            MOTION,
            "a.bvh",
            {"in_place": True, "root_motion": True},
            ValueError,
            "removes the path that root_motion needs",
        ),
        (np.zeros((4, 263)), "a.bvh", {}, ValueError, r"got shape \(4, 263\)"),
        (np.full((4, 272), np.nan), "a.bvh", {}, ValueError, "NaN or infinity first in frame 0"),
        ("nowhere.bvh", "a.glb", {}, ValueError, "there is no file 'nowhere.bvh'"),
        (7, "a.glb", {}, TypeError, "cannot export int"),
        (np.ones((4, 272), bool), "a.glb", {}, TypeError, "must hold floats, got bool"),
        (np.ones((4, 272), complex), "a.glb", {}, TypeError, "must hold floats, got complex128"),
        (np.full((4, 272), "1"), "a.glb", {}, TypeError, "must hold floats, got <U1"),
        (WALK * 1e6, "a.glb", {}, ValueError, "are no motion, expected metres"),
        (MOTION, "a.glb", {"up": "z"}, ValueError, "only BVH files can have Z up"),
        (MOTION, "a.npz", {"unit": "cm"}, ValueError, "only BVH and GLB files can have another unit; npz cannot"),
        (MOTION, "a.csv", {"root_motion": True}, ValueError, "can have root motion; csv cannot"),
        (MOTION, "a.glb", {"fps": True}, TypeError, "fps must be a number, got True"),
        (MOTION, "a.glb", {"in_place": "no"}, TypeError, "in_place must be True or False, got 'no'"),
        (WALK, "a.glb", {"body": "nope/typo"}, ValueError, "there is no folder 'nope/typo' to read a body from"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, motion, name, options, error, words):
    with pytest.raises(error, match=words):
        hftrainer.export(motion, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_positions_without_rotations_are_fitted_too():
    found = fit(MOTION.joints, None, BODY, smoothing=1)
    assert np.abs(found.joints - MOTION.joints).max() < 0.01


def test_features_of_another_representation_are_exported(tmp_path):
    import hftrainer
    from hftrainer.motion.io.read_body import read_motions

    features = make_motion("walk", 40, 0, "hml263")
    hftrainer.export(features, tmp_path / "walk.npz", representation="hml263")
    ((_, found),) = read_motions(tmp_path / "walk.npz")
    assert (len(found.joints), found.fps) == (len(features), 20)
    with pytest.raises(ValueError, match=r"an array of motion272 has 272 features, \(frames, 272\), got shape"):
        hftrainer.export(features, tmp_path / "other.npz")
