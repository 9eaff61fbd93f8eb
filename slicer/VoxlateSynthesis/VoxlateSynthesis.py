"""3D Slicer: synthesise a CT (or another modality) of a volume by a running `voxlate serve`.

Research software, not a medical device. Install: Edit > Application Settings > Modules > Additional module paths, add
this folder, and restart Slicer. The volume goes to the server of the printed address and nowhere else.
"""

import re
import sys
import tempfile
from pathlib import Path

import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

sys.path.append(str(Path(__file__).parent))
from voxlate_client import Client, VoxlateError

NOTICE = "Synthetic image. Research use only, not for diagnosis or treatment."
AS_FOUND = "as the server finds"
# What the page calls otherwise than the panel.
PANEL = (
    (r"Choose (other|fewer) files\.", "Choose another volume."),
    (r"\bupload:", "volume:"),
    (r" Go to (the list|its page|the page)\.", ""),
    (r"Choose another model, or say what each scan is\.", "Choose another contrast or model."),
    (r"Name the file by its modality, or give it as \S+", "Choose its contrast."),
)


def in_panel(sentence):
    """A sentence of the server in the words of the panel."""
    for pattern, words in PANEL:
        sentence = re.sub(pattern, words, sentence)
    return sentence


class VoxlateSynthesis(ScriptedLoadableModule):
    """The entry of Slicer's list of modules."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "Voxlate synthesis"
        parent.categories = ["Converters"]
        parent.dependencies = []
        parent.contributors = ["voxlate"]
        parent.helpText = f"Sends a volume to a running <b>voxlate serve</b> and loads the synthesised image, its interval and warnings. {NOTICE}"
        parent.acknowledgementText = "Apache-2.0"


class VoxlateSynthesisWidget(ScriptedLoadableModuleWidget):
    """The panel: address, volume, contrast, model, and what the server says."""

    def setup(self):
        super().setup()
        self.logic = VoxlateSynthesisLogic()
        form = qt.QFormLayout()
        self.layout.addLayout(form)
        self.address = qt.QLineEdit()
        self.address.placeholderText = "http://127.0.0.1:8765/enter?token=…"
        form.addRow("Address that the server printed:", self.address)
        self.connect = qt.QPushButton("Connect")
        form.addRow(self.connect)
        self.volume = slicer.qMRMLNodeComboBox()
        self.volume.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volume.addEnabled = self.volume.removeEnabled = False
        self.volume.setMRMLScene(slicer.mrmlScene)
        form.addRow("Volume:", self.volume)
        self.contrast = qt.QComboBox()
        self.contrast.editable = True
        form.addRow("Contrast:", self.contrast)
        self.model = qt.QComboBox()
        form.addRow("Model:", self.model)
        self.options, self.fields = qt.QFormLayout(), {}
        form.addRow(self.options)
        self.apply = qt.QPushButton("Synthesise")
        self.apply.enabled = False
        form.addRow(self.apply)
        self.cancel = qt.QPushButton("Cancel")
        self.cancel.visible = False
        form.addRow(self.cancel)
        self.progress = qt.QProgressBar()
        self.progress.visible = False
        form.addRow(self.progress)
        self.said = qt.QTextEdit()
        self.said.readOnly = True
        self.said.plainText = NOTICE
        form.addRow(self.said)
        self.connect.connect("clicked()", self.onConnect)
        self.apply.connect("clicked()", self.onApply)
        self.cancel.connect("clicked()", self.onCancel)
        self.layout.addStretch(1)

    def onConnect(self):
        """Enter the server, and list its models."""
        try:
            models = self.logic.connect(self.address.text)
        except VoxlateError as error:
            slicer.util.errorDisplay(in_panel(str(error)))
            return
        self.address.text = ""  # it holds the token
        self.model.clear()
        self.model.addItem("the best that fits")
        self.model.addItems(models)
        self.contrast.clear()
        self.contrast.addItem(AS_FOUND)
        self.contrast.addItems(self.logic.client.contrasts())
        for name, schema in self.logic.client.options().items():
            if name not in self.fields:
                self.fields[name] = self.field(schema)
                self.options.addRow(f"{schema['title']}:", self.fields[name])
        self.apply.enabled = True

    def field(self, schema):
        """The widget of an option; an empty one leaves the choice to the model."""
        if schema["type"] == "boolean":
            widget = qt.QCheckBox()
        elif "enum" in schema:
            widget = qt.QComboBox()
            widget.addItems(schema["enum"])
        else:
            widget = qt.QLineEdit()
        widget.toolTip = schema["description"]
        return widget

    def chosen(self):
        """The options that are filled in, as texts."""
        texts = {}
        for name, widget in self.fields.items():
            if isinstance(widget, qt.QCheckBox):
                texts[name] = "1" if widget.checked else ""
            else:
                texts[name] = (
                    widget.currentText if isinstance(widget, qt.QComboBox) else widget.text
                )
        return {name: text for name, text in texts.items() if text}

    def onApply(self):
        """Synthesise, and show the result with its warnings."""
        node = self.volume.currentNode()
        if node is None:
            slicer.util.errorDisplay("Volume: expected one, found none. Load and choose a volume.")
            return
        model = "" if self.model.currentIndex == 0 else self.model.currentText
        self.apply.enabled, self.cancelled = False, False
        self.progress.visible = self.cancel.visible = True
        try:
            nodes, sentences = self.logic.synthesise(
                node, self.contrast.currentText, model, self.tell, **self.chosen()
            )
            self.said.plainText = "\n".join([NOTICE, *sentences])
            self.logic.show(node, nodes)
        except VoxlateError as error:
            slicer.util.errorDisplay(in_panel(str(error)))
        finally:
            self.apply.enabled = True
            self.progress.visible = self.cancel.visible = False

    def onCancel(self):
        """End the job at the next look at it."""
        self.cancelled = True

    def tell(self, stage, percent):
        """Show how far the server is."""
        self.progress.format = stage
        self.progress.maximum = 0 if percent is None else 100
        self.progress.value = percent or 0
        slicer.app.processEvents()
        if self.cancelled:
            raise VoxlateError("The synthesis was cancelled.")


class VoxlateSynthesisLogic(ScriptedLoadableModuleLogic):
    """From a volume node to the nodes of a result."""

    client, windows = None, {}

    def connect(self, address):
        """Enter a server; returns the labels of its models."""
        self.client = Client(address)
        return self.client.models()

    def synthesise(self, node, contrast, model="", tell=lambda stage, percent: None, **options):
        """The nodes of the synthesised images and of their intervals by name, and the sentences of the server on them.

        contrast: AS_FOUND, or what the volume is. The name and description of a node state what it shows and its grade.
        Raises VoxlateError where the volume has a transform, and for every refusal of the server.
        """
        if self.client is None:
            raise VoxlateError("address: expected a connection, found none. Press Connect first.")
        if node.GetParentTransformNode() is not None:
            raise VoxlateError(
                f"{node.GetName()}: expected a volume without a transform, found one. Harden the transform first."
            )
        with tempfile.TemporaryDirectory() as folder:
            contrast = "" if contrast == AS_FOUND else contrast.strip().lower()
            scan = Path(folder) / f"{contrast or 'scan'}.nii.gz"
            # exportNode (Slicer 5) leaves the node's own file name as it is
            write = getattr(slicer.util, "exportNode", slicer.util.saveNode)
            if not write(node, str(scan)):
                raise VoxlateError(
                    f"{node.GetName()}: expected a volume that can be saved, found another."
                )
            result = self.client.synthesise({scan.name: scan.read_bytes()}, model, tell, **options)
            nodes = {}
            for name, url in result["images"].items():
                path = Path(folder) / f"{name}.nii.gz"
                path.write_bytes(self.client.read(url))
                described = result.get("descriptions", {}).get(name, "synthetic")
                title = f"{node.GetName()}: {name} ({described})"
                nodes[name] = slicer.util.loadVolume(str(path), {"name": title, "show": False})
                nodes[name].SetDescription(f"{described}. {NOTICE}")
        self.client.delete(result)
        self.windows = result["windows"]
        sentences = [result["summary"], *result["expected"]]
        sentences += [f"{said['grade']}: {said['text']}" for said in result["warnings"]]
        return nodes, [sentence for sentence in sentences if sentence]

    def show(self, source, nodes):
        """The first image over its source; images have the windows that the server proposes."""
        image = next(iter(nodes.values()))
        for name, (low, high) in self.windows.items():
            display = nodes[name].GetDisplayNode()
            if display is not None:
                display.AutoWindowLevelOff()
                display.SetWindowLevel(high - low, (low + high) / 2)
        slicer.util.setSliceViewerLayers(background=source, foreground=image, foregroundOpacity=0.5)


class VoxlateSynthesisTest(ScriptedLoadableModuleTest):
    """Slicer's own test of the module, without a server."""

    def runTest(self):
        """A wrong address is one sentence."""
        slicer.mrmlScene.Clear()
        said = ""
        try:
            VoxlateSynthesisLogic().connect("http://127.0.0.1:1")
        except VoxlateError as error:
            said = str(error)
        assert said.startswith("address: expected what")
        self.delayDisplay("Test passed")
