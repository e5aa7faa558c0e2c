"""Layers and models."""

from dlcore.nn import init
from dlcore.nn.activations import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Activation,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softshrink,
    Softsign,
    Tanh,
    Tanhshrink,
    Threshold,
)
from dlcore.nn.attention import MultiheadAttention, SinusoidalEncoding, sinusoidal_encoding
from dlcore.nn.containers import Checkpoint, Identity, Lambda, ModuleDict, ModuleList, Residual, Sequential
from dlcore.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from dlcore.nn.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d
from dlcore.nn.embedding import Embedding
from dlcore.nn.linear import Bilinear, Linear
from dlcore.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    ContrastiveLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    CTCLoss,
    GaussianNLLLoss,
    HingeEmbeddingLoss,
    HingeLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MarginRankingLoss,
    MSELoss,
    NLLLoss,
    PoissonNLLLoss,
    SmoothL1Loss,
    TripletMarginLoss,
)
from dlcore.nn.module import KeyReport, Module
from dlcore.nn.norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from dlcore.nn.parameter import Parameter
from dlcore.nn.pool import (
    AdaptiveAvgPool,
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from dlcore.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, summed_biases
from dlcore.nn.reparametrise import SpectralNorm, WeightNorm
from dlcore.nn.reshaping import Flatten, PixelShuffle, PixelUnshuffle, Unflatten, Upsample
from dlcore.nn.transformer import (
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from dlcore.ops.activation import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from dlcore.ops.attention import scaled_dot_product_attention
from dlcore.ops.conv import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from dlcore.ops.ctc import ctc_loss
from dlcore.ops.elementwise import tanh
from dlcore.ops.embed import embedding
from dlcore.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    gaussian_nll_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)
from dlcore.ops.margin_loss import (
    contrastive_loss,
    cosine_embedding_loss,
    cosine_similarity,
    hinge_embedding_loss,
    hinge_loss,
    margin_ranking_loss,
    pairwise_distance,
    triplet_margin_loss,
)
from dlcore.ops.matmul import linear
from dlcore.ops.norm import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from dlcore.ops.pool import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from dlcore.ops.random import dropout
from dlcore.ops.resize import (
    adaptive_avg_pool,
    adaptive_max_pool,
    global_avg_pool,
    global_max_pool,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
)
from dlcore.ops.softmax import log_softmax, softmax
