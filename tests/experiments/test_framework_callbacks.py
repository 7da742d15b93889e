"""PyTorch Lightning and the Trainer of Hugging Face take part by one callback each, on models that are made here."""

from __future__ import annotations

import gc
import math
import shutil
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from elastune.experiments.own_code import find
from elastune.experiments.own_training import own_workload, unpack
from elastune.experiments.spec.space import search_space_of
from elastune.sim.model.errors import WorkerError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SPACE = {"learning_rate": {"uniform": [0.01, 0.1]}}
LIGHTNING = """
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from elastune import LightningCallback

class Line(pytorch_lightning.LightningModule):
    def __init__(self, rate):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.rate = torch.nn.Linear(4, 1), rate

    def training_step(self, batch, _):
        x, y = batch
        return ((self.layer(x) - y) ** 2).mean()

    def validation_step(self, batch, _):
        self.log("val_loss", self.training_step(batch, 0))

    def on_train_epoch_end(self):
        self.log("rate", self.optimizers().param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), self.rate)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

def train(config, metric="val_loss"):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 4, generator=generator)
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
    callback = LightningCallback(metric, test_metric="rate")
    trainer = pytorch_lightning.Trainer(
        max_epochs=6, accelerator="cpu", devices=1, callbacks=[callback], logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(Line(config["learning_rate"]), data, data, ckpt_path=callback.ckpt_path, weights_only=True)

def misnamed(config):
    train(config, "val_acuracy")
"""
HUGGINGFACE = """
import torch
from transformers import Trainer, TrainingArguments

from elastune import HuggingFaceCallback

class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x, labels):
        y = self.layer(x)
        return {"loss": ((y - labels) ** 2).mean(), "logits": y}

def train(config, metric="eval_loss"):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 4, generator=generator)
    rows = [{"x": row, "labels": row.sum(0, keepdim=True)} for row in x]
    callback = HuggingFaceCallback(metric, test_metric="eval_error")
    arguments = TrainingArguments(
        output_dir=callback.output_dir, num_train_epochs=6, per_device_train_batch_size=8, use_cpu=True,
        learning_rate=config["learning_rate"], eval_strategy="epoch", save_strategy="no", report_to="none",
        disable_tqdm=True, logging_strategy="no",
    )
    trainer = Trainer(
        Line(), arguments, train_dataset=rows, eval_dataset=rows, callbacks=[callback],
        compute_metrics=lambda told: {"error": float(abs(told.predictions - told.label_ids).mean())},
    )
    trainer.train(resume_from_checkpoint=callback.checkpoint)

def misnamed(config):
    train(config, "eval_acuracy")
"""
FRAMEWORKS = {"pytorch_lightning": LIGHTNING, "transformers": HUGGINGFACE}
pytestmark = pytest.mark.filterwarnings("default")  # theirs, about PyTorch


@pytest.fixture(params=FRAMEWORKS)
def build(request, tmp_path, monkeypatch):
    """Builds a trial of the framework's code."""
    pytest.importorskip("torch", reason="the frameworks train with PyTorch")
    pytest.importorskip(request.param, reason=f"{request.param} is an optional extra")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FRAMEWORKS[request.param])

    def build(name="train"):
        code = own_workload(find(f"mine.py:{name}"), search_space_of(SPACE), "minimize", 6)
        return code.build({"learning_rate": 0.05}, 7)

    build.framework = request.param
    return build


def scores_of(trial):
    trial.train_iteration()
    return trial.evaluate(), trial.test_score()


@pytest.mark.slow
def test_a_trial_goes_on_from_its_checkpoint_as_if_nothing_had_happened(build, tmp_path):
    whole = build()
    scores = [scores_of(whole) for _ in range(6)]
    assert scores[-1][0] < scores[0][0]
    first = build()
    for _ in range(3):
        scores_of(first)
    first.save(tmp_path / "checkpoint")
    second = build()
    second.load(tmp_path / "checkpoint")
    assert [scores_of(second) for _ in range(3)] == scores[3:]
    with pytest.raises(WorkerError, match="ended after 3 reports"):
        second.train_iteration()
    (tmp_path / "files").mkdir()
    unpack(tmp_path / "checkpoint", tmp_path / "files")
    kept = {file.name for file in (tmp_path / "files").iterdir()}
    assert kept == {"trainer.ckpt"} if build.framework == "pytorch_lightning" else "model.safetensors" in kept


@pytest.mark.slow
def test_a_metric_that_nobody_logged_is_named_with_those_there_are(build):
    with pytest.raises(WorkerError, match=r"'(val|eval)_acuracy'.*(val|eval)_loss"):
        build("misnamed").train_iteration()


@pytest.mark.slow
def test_a_trial_that_nobody_wants_any_more_leaves_no_folder(build, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trial = build()
    for _ in range(2):
        trial.train_iteration()
    written = list(tmp_path.glob("elastune-*/*"))
    assert len(written) == (1 if build.framework == "transformers" else 0)  # the last checkpoint
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "training")
    del trial
    gc.collect()
    thread.join(20)
    del thread
    gc.collect()
    assert not list(tmp_path.glob("elastune-*"))


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["lightning", "huggingface"])
def test_the_examples_of_the_guide_train_and_go_on(framework, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the examples train with PyTorch")
    package = {"lightning": "pytorch_lightning", "huggingface": "transformers"}[framework]
    pytest.importorskip(package, reason=f"{package} is an optional extra")
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / f"digits_{framework}.py", tmp_path / "mine.py")
    space = search_space_of({**SPACE, "width": [16]})
    code = own_workload(find("mine.py:train"), space, "maximize", 3)
    first = code.build({"learning_rate": 0.02, "width": 16}, 3)
    first.train_iteration()
    first.save(tmp_path / "checkpoint")
    second = code.build({"learning_rate": 0.02, "width": 16}, 3)
    second.load(tmp_path / "checkpoint")
    second.train_iteration()
    second.train_iteration()
    assert math.isfinite(first.evaluate())
    assert second.evaluate() > max(first.evaluate(), 0.3)


@pytest.mark.slow
def test_either_package_of_lightning_gives_a_checkpoint_of_its_own(monkeypatch):
    pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is an optional extra")
    import pytorch_lightning

    from elastune import LightningCallback

    assert isinstance(LightningCallback("val_loss"), pytorch_lightning.callbacks.Checkpoint)
    theirs = ModuleType("lightning.pytorch.callbacks")
    theirs.Checkpoint = type("Checkpoint", (), {})
    monkeypatch.setitem(sys.modules, "lightning.pytorch", ModuleType("lightning.pytorch"))
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch.callbacks", theirs)
    assert isinstance(LightningCallback("val_loss"), theirs.Checkpoint)
