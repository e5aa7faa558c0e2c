"""Layers and models."""

from dlcore.nn.containers import Identity, Lambda, ModuleDict, ModuleList, Residual, Sequential
from dlcore.nn.module import KeyReport, Module
from dlcore.nn.parameter import Parameter
