"""USD with a skeleton and its animation (UsdSkel), for Omniverse, Houdini and Blender; needs usd-core."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from hftrainer.extras import need
from hftrainer.files import atomic_path
from hftrainer.motion.animation import Animation, animate
from hftrainer.motion.body import BodyMotion
from hftrainer.motion.mannequin import mannequin
from hftrainer.motion.rotation import matrix_to_quaternion


def write_usd(path: str | os.PathLike[str], motion: BodyMotion) -> None:
    """Write the skinned mannequin and a motion as .usd, .usda or .usdc, atomically; metres, Y up."""
    usd: Any = need("pxr.Usd", "writing USD files")
    geom, skel, gf, vt, sdf = (need(f"pxr.{part}", "writing USD files") for part in _PARTS)
    animation = animate(motion)
    with atomic_path(path) as temporary:
        temporary.unlink()
        stage = usd.Stage.CreateNew(str(temporary))
        geom.SetStageUpAxis(stage, geom.Tokens.y)
        geom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetFramesPerSecond(motion.fps)
        stage.SetTimeCodesPerSecond(motion.fps)
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(len(motion) - 1)
        root = skel.Root.Define(stage, "/person")
        stage.SetDefaultPrim(root.GetPrim())
        names = _paths(animation)
        skeleton = skel.Skeleton.Define(stage, "/person/skeleton")
        skeleton.CreateJointsAttr(names)
        skeleton.CreateBindTransformsAttr(vt.Matrix4dArray([_matrix(gf, place) for place in animation.rest]))
        skeleton.CreateRestTransformsAttr(vt.Matrix4dArray([_matrix(gf, offset) for offset in animation.offsets]))
        moved = skel.Animation.Define(stage, "/person/skeleton/motion")
        moved.CreateJointsAttr(names)
        moved.CreateScalesAttr(vt.Vec3hArray([gf.Vec3h(1, 1, 1)] * len(names)))
        turns, places = moved.CreateRotationsAttr(), moved.CreateTranslationsAttr()
        quaternions = np.asarray(matrix_to_quaternion(animation.rotations))
        for frame in range(len(motion)):
            at = usd.TimeCode(frame)
            turns.Set(vt.QuatfArray([gf.Quatf(*map(float, q)) for q in quaternions[frame]]), at)
            steps = [animation.moves[b][frame] if b in animation.moves else o for b, o in enumerate(animation.offsets)]
            places.Set(vt.Vec3fArray([gf.Vec3f(*map(float, step)) for step in steps]), at)
        binding = skel.BindingAPI.Apply(skeleton.GetPrim())
        binding.CreateAnimationSourceRel().SetTargets([sdf.Path("/person/skeleton/motion")])
        _mesh(stage, geom, skel, gf, vt, sdf, motion)
        stage.GetRootLayer().Save()


_PARTS = ("UsdGeom", "UsdSkel", "Gf", "Vt", "Sdf")


def _mesh(stage: Any, geom: Any, skel: Any, gf: Any, vt: Any, sdf: Any, motion: BodyMotion) -> None:
    figure = mannequin(motion.body)
    faces = np.concatenate(list(figure.faces.values()))
    mesh = geom.Mesh.Define(stage, "/person/mannequin")
    mesh.CreatePointsAttr(vt.Vec3fArray([gf.Vec3f(*map(float, point)) for point in figure.points]))
    mesh.CreateFaceVertexIndicesAttr(faces.ravel().tolist())
    mesh.CreateFaceVertexCountsAttr([3] * len(faces))
    mesh.CreateSubdivisionSchemeAttr("none")
    strongest = np.argsort(-figure.weights, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(figure.weights, strongest, axis=1)
    binding = skel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateJointIndicesPrimvar(False, 4).Set((strongest + 1).ravel().tolist())
    binding.CreateJointWeightsPrimvar(False, 4).Set((weights / weights.sum(1, keepdims=True)).ravel().tolist())
    binding.CreateSkeletonRel().SetTargets([sdf.Path("/person/skeleton")])


def _paths(animation: Animation) -> list[str]:
    """Each bone's name after those of its ancestors, as UsdSkel orders them."""
    paths: list[str] = []
    for name, parent in zip(animation.names, animation.parents, strict=True):
        paths.append(name if parent < 0 else f"{paths[parent]}/{name}")
    return paths


def _matrix(gf: Any, place: np.ndarray) -> Any:
    return gf.Matrix4d(1.0).SetTranslate(gf.Vec3d(*map(float, place)))
