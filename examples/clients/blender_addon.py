"""A Blender add-on for a running `hftrainer serve`: type a sentence, get an animated armature.

Blender 4.2 or newer: Edit > Preferences > Add-ons > Install from Disk, and choose this file. The panel is in the 3D
view's sidebar (N), tab Motion. Start the server with ``hftrainer serve``, on this machine or another one.
"""

import json
import os
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

bl_info = {
    "name": "Text to Motion (hftrainer)", "version": (0, 2, 0), "blender": (4, 2, 0), "category": "Animation",
    "location": "View3D > Sidebar > Motion", "description": "Human motion from a sentence",
}  # fmt: skip
SERVER = {"server": "http://127.0.0.1:8000"}
RIGS = [
    ("model", "Model", "The model's own skeleton"), ("mixamo", "Mixamo", "Mixamo's bones"),
    ("unreal", "Unreal", "The mannequin's bones"), ("unity", "Unity", "Bones of a humanoid"),
    ("vrm", "VRM", "Bones of a VRM avatar"), ("smpl", "SMPL", "SMPL's joints"),
]  # fmt: skip


def call(server, token, path, body=None):
    """GET, or POST of a JSON `body`, to bytes; RuntimeError with the server's sentence if it refuses."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.rstrip("/") + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            text = json.loads(text)["message"]
        except (ValueError, KeyError, TypeError):
            pass
        raise RuntimeError(text) from error
    except urllib.error.URLError as error:
        raise RuntimeError(f"no server at {server} ({error.reason}); start one: hftrainer serve") from error


def request_of(settings):
    """What is asked of the server: a sentence, or with `then` a timeline."""
    later = [text.strip() for text in settings.then.split(";") if text.strip()]
    if later and not settings.seconds:
        raise RuntimeError("with more sentences, set Seconds: how long each lasts")
    if later:
        parts = [{"prompt": text, "seconds": settings.seconds} for text in [settings.prompt, *later]]
        return {"timeline": parts, "seed": settings.seed}
    return {"prompt": settings.prompt, "seconds": settings.seconds or None, "seed": settings.seed}


def fetch(server, token, asked, options):
    """A motion's .glb on disk, and the server's remarks."""
    motion = json.loads(call(server, token, "/v1/motions", asked))["motions"][0]
    if motion.get("error"):
        raise RuntimeError(motion["error"])
    query = urllib.parse.urlencode({name: str(value).lower() for name, value in options.items() if value})
    content = call(server, token, f"/v1/motions/{motion['id']}/motion.glb?{query}")
    handle, path = tempfile.mkstemp(suffix=".glb")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return path, motion.get("warnings", [])


def load(path, name, scene):
    """Import a .glb and delete it; the armature, named after its prompt. Sets the scene to 30 frames a second."""
    scene.render.fps, scene.render.fps_base = 30, 1.0  # glTF counts seconds, Blender frames
    before = set(bpy.data.objects)
    bpy.ops.import_scene.gltf(filepath=path)
    os.remove(path)
    body = next(thing for thing in bpy.data.objects if thing not in before and thing.type == "ARMATURE")
    action = body.animation_data.action
    body.name = action.name = name[:60]
    scene.frame_end = max(scene.frame_end, int(action.frame_range[1]))
    return body


class MotionPreferences(bpy.types.AddonPreferences):
    """Where the server is."""

    bl_idname = __name__
    server: StringProperty(name="Server", default=SERVER["server"])
    token: StringProperty(name="Token", subtype="PASSWORD")

    def draw(self, context):
        """The two fields."""
        for name in ("server", "token"):
            self.layout.prop(self, name)


class MotionSettings(bpy.types.PropertyGroup):
    """What the panel shows."""

    prompt: StringProperty(name="Prompt", default="a person walks forward")
    then: StringProperty(name="Then", description="More sentences, separated by ;")
    seconds: FloatProperty(name="Seconds", description="0: the model's choice", default=0, min=0, max=60)
    seed: IntProperty(name="Seed", default=0, min=0)
    skeleton: EnumProperty(name="Skeleton", items=RIGS)
    loop: BoolProperty(name="Loop")
    in_place: BoolProperty(name="In place")


class HFT_OT_generate(bpy.types.Operator):
    """Make the motion; Blender stays usable in the meantime"""

    bl_idname, bl_label = "hftrainer.generate", "Generate"
    # no name that Blender has: in Blender 5 an operator's own `name` is read-only
    _thread = None

    def execute(self, context):
        """Start; without a window (in scripts) wait for the end."""
        settings, where = context.scene.hftrainer, preferences(context)
        options = {"skeleton": settings.skeleton, "loop": settings.loop, "in_place": settings.in_place}
        self._title, self._made, self._problem = settings.prompt, None, None
        try:
            asked = request_of(settings)
        except RuntimeError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}

        def work():
            try:
                self._made = fetch(where["server"], where["token"], asked, options)
            except (RuntimeError, OSError, ValueError) as error:
                self._problem = str(error)

        if bpy.app.background:
            work()
            return self.finish(context)
        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        self._timer = context.window_manager.event_timer_add(0.2, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        """Check whether the motion has arrived."""
        if self._thread.is_alive():
            return {"PASS_THROUGH"}
        context.window_manager.event_timer_remove(self._timer)
        return self.finish(context)

    def finish(self, context):
        """Import it, or say why there is none."""
        if self._problem is not None:
            self.report({"ERROR"}, self._problem)
            return {"CANCELLED"}
        path, remarks = self._made
        load(path, self._title, context.scene)
        for remark in remarks:
            self.report({"WARNING"}, remark)
        return {"FINISHED"}


class HFT_PT_panel(bpy.types.Panel):
    """The panel in the sidebar."""

    bl_label, bl_space_type, bl_region_type, bl_category = "Text to Motion", "VIEW_3D", "UI", "Motion"

    def draw(self, context):
        """The fields and the button."""
        for name in MotionSettings.__annotations__:
            self.layout.prop(context.scene.hftrainer, name)
        self.layout.operator(HFT_OT_generate.bl_idname)


CLASSES = (MotionPreferences, MotionSettings, HFT_OT_generate, HFT_PT_panel)


def preferences(context):
    """Server and token: the add-on's, or the environment's where it is run as a script."""
    addon = context.preferences.addons.get(__name__)
    if addon:
        return {"server": addon.preferences.server, "token": addon.preferences.token}
    return {name: os.environ.get(f"HFTRAINER_{name.upper()}", SERVER.get(name, "")) for name in ("server", "token")}


def register():
    """Blender calls this when the add-on is switched on."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.hftrainer = PointerProperty(type=MotionSettings)


def unregister():
    """The same when it is switched off."""
    del bpy.types.Scene.hftrainer
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
