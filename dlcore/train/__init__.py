"""The training loop and what listens to it: metrics, loggers, checkpoints, early stopping."""

from dlcore.train.callbacks import Callback, EarlyStopping
from dlcore.train.checkpoints import Checkpoints, load_checkpoint
from dlcore.train.loggers import CSVLogger, JSONLLogger, TensorBoardLogger, read_jsonl
from dlcore.train.metrics import Accuracy, ConfusionMatrix, MeanAbsoluteError, MeanLoss, Metric, TopK
from dlcore.train.progress import Progress
from dlcore.train.trainer import Trainer

__all__ = [
    "Accuracy",
    "CSVLogger",
    "Callback",
    "Checkpoints",
    "ConfusionMatrix",
    "EarlyStopping",
    "JSONLLogger",
    "MeanAbsoluteError",
    "MeanLoss",
    "Metric",
    "Progress",
    "TensorBoardLogger",
    "TopK",
    "Trainer",
    "load_checkpoint",
    "read_jsonl",
]
