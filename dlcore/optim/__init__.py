"""Optimizers, gradient clipping, learning-rate schedules, parameter averaging."""

from dlcore.optim.algorithms import LAMB, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, NAdam, RMSprop
from dlcore.optim.clip import clip_grad_norm, clip_grad_value, grad_norm
from dlcore.optim.ema import EMA
from dlcore.optim.lbfgs import LBFGS
from dlcore.optim.optimizer import Optimizer
from dlcore.optim.schedules import (
    ChainedLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearWarmup,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Schedule,
    SequentialLR,
    StepLR,
    WarmupCosine,
)
