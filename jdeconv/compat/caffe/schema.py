"""The messages of Caffe's files, as far as they are read here: names, numbers, kinds and defaults of fields.

Written out as protobuf descriptors, so that no generated code is needed. A field that is not listed is an error
in a prototxt, as a typing error would be, and passed over in a caffemodel, where training has left many.

Source: BVLC Caffe, src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

import functools
from typing import Any

# "*" is repeated, "=" a default; a capital is another message or an enumeration.
MESSAGES = {
    "BlobShape": "dim 1 int64*",
    "BlobProto": """num 1 int32; channels 2 int32; height 3 int32; width 4 int32; data 5 float*;
        shape 7 BlobShape; double_data 8 double*""",
    "FillerParameter": """type 1 string=constant; value 2 float=0; min 3 float=0; max 4 float=1; mean 5 float=0;
        std 6 float=1; sparse 7 int32=-1; variance_norm 8 VarianceNorm=FAN_IN""",
    "NetState": "phase 1 Phase=TEST; level 2 int32=0; stage 3 string*",
    "NetStateRule": """phase 1 Phase; min_level 2 int32; max_level 3 int32; stage 4 string*;
        not_stage 5 string*""",
    "ParamSpec": "name 1 string; share_mode 2 DimCheckMode=STRICT; lr_mult 3 float=1; decay_mult 4 float=1",
    "ConvolutionParameter": """num_output 1 uint32; bias_term 2 bool=true; pad 3 uint32*; kernel_size 4 uint32*;
        group 5 uint32=1; stride 6 uint32*; weight_filler 7 FillerParameter;
        bias_filler 8 FillerParameter;
        pad_h 9 uint32; pad_w 10 uint32; kernel_h 11 uint32; kernel_w 12 uint32; stride_h 13 uint32;
        stride_w 14 uint32; engine 15 Engine=DEFAULT; axis 16 int32=1; force_nd_im2col 17 bool=false;
        dilation 18 uint32*""",
    "PoolingParameter": """pool 1 PoolMethod=MAX; kernel_size 2 uint32; stride 3 uint32=1; pad 4 uint32=0;
        kernel_h 5 uint32; kernel_w 6 uint32; stride_h 7 uint32; stride_w 8 uint32; pad_h 9 uint32;
        pad_w 10 uint32; engine 11 Engine=DEFAULT; global_pooling 12 bool=false;
        round_mode 13 RoundMode=CEIL""",
    "InnerProductParameter": """num_output 1 uint32; bias_term 2 bool=true; weight_filler 3 FillerParameter;
        bias_filler 4 FillerParameter; axis 5 int32=1; transpose 6 bool=false""",
    "BatchNormParameter": """use_global_stats 1 bool; moving_average_fraction 2 float=0.999;
        eps 3 float=1e-5""",
    "ScaleParameter": """axis 1 int32=1; num_axes 2 int32=1; filler 3 FillerParameter; bias_term 4 bool=false;
        bias_filler 5 FillerParameter""",
    "EltwiseParameter": "operation 1 EltwiseOp=SUM; coeff 2 float*; stable_prod_grad 3 bool=true",
    "ConcatParameter": "concat_dim 1 uint32; axis 2 int32=1",
    "SliceParameter": "slice_dim 1 uint32; slice_point 2 uint32*; axis 3 int32=1",
    "CropParameter": "axis 1 int32=2; offset 2 uint32*",
    "ReshapeParameter": "shape 1 BlobShape; axis 2 int32=0; num_axes 3 int32=-1",
    "FlattenParameter": "axis 1 int32=1; end_axis 2 int32=-1",
    "SoftmaxParameter": "engine 1 Engine=DEFAULT; axis 2 int32=1",
    "ReLUParameter": "negative_slope 1 float=0; engine 2 Engine=DEFAULT",
    "PReLUParameter": "filler 1 FillerParameter; channel_shared 2 bool=false",
    "EngineParameter": "engine 1 Engine=DEFAULT",
    "DropoutParameter": "dropout_ratio 1 float=0.5",
    "InputParameter": "shape 1 BlobShape*",
    "LayerParameter": """name 1 string; type 2 string; bottom 3 string*; top 4 string*; loss_weight 5 float*;
        param 6 ParamSpec*; blobs 7 BlobProto*; include 8 NetStateRule*; exclude 9 NetStateRule*;
        phase 10 Phase; propagate_down 11 bool*;
        concat_param 104 ConcatParameter; convolution_param 106 ConvolutionParameter;
        dropout_param 108 DropoutParameter; eltwise_param 110 EltwiseParameter;
        inner_product_param 117 InnerProductParameter; pooling_param 121 PoolingParameter;
        relu_param 123 ReLUParameter; sigmoid_param 124 EngineParameter; softmax_param 125 SoftmaxParameter;
        slice_param 126 SliceParameter; tanh_param 127 EngineParameter; prelu_param 131 PReLUParameter;
        reshape_param 133 ReshapeParameter; flatten_param 135 FlattenParameter;
        batch_norm_param 139 BatchNormParameter; scale_param 142 ScaleParameter; input_param 143 InputParameter;
        crop_param 144 CropParameter""",
    "V1LayerParameter": """bottom 2 string*; top 3 string*; name 4 string; type 5 V1Type; blobs 6 BlobProto*;
        blobs_lr 7 float*; weight_decay 8 float*; concat_param 9 ConcatParameter;
        convolution_param 10 ConvolutionParameter; dropout_param 12 DropoutParameter;
        inner_product_param 17 InnerProductParameter; pooling_param 19 PoolingParameter;
        eltwise_param 24 EltwiseParameter; relu_param 30 ReLUParameter; slice_param 31 SliceParameter;
        include 32 NetStateRule*; exclude 33 NetStateRule*;
        loss_weight 35 float*; tanh_param 37 EngineParameter;
        sigmoid_param 38 EngineParameter; softmax_param 39 SoftmaxParameter; param 1001 string*;
        blob_share_mode 1002 DimCheckMode*""",
    "NetParameter": """name 1 string; layers 2 V1LayerParameter*; input 3 string*; input_dim 4 int32*;
        force_backward 5 bool; state 6 NetState; debug_info 7 bool; input_shape 8 BlobShape*;
        layer 100 LayerParameter*""",
}
ENUMS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "VarianceNorm": {"FAN_IN": 0, "FAN_OUT": 1, "AVERAGE": 2},
    "DimCheckMode": {"STRICT": 0, "PERMISSIVE": 1},
    "Engine": {"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "V1Type": {
        "NONE": 0, "ACCURACY": 1, "BNLL": 2, "CONCAT": 3, "CONVOLUTION": 4, "DATA": 5, "DROPOUT": 6,
        "EUCLIDEAN_LOSS": 7, "FLATTEN": 8, "HDF5_DATA": 9, "HDF5_OUTPUT": 10, "IM2COL": 11, "IMAGE_DATA": 12,
        "INFOGAIN_LOSS": 13, "INNER_PRODUCT": 14, "LRN": 15, "MULTINOMIAL_LOGISTIC_LOSS": 16, "POOLING": 17,
        "RELU": 18, "SIGMOID": 19, "SOFTMAX": 20, "SOFTMAX_LOSS": 21, "SPLIT": 22, "TANH": 23,
        "WINDOW_DATA": 24, "ELTWISE": 25, "POWER": 26, "SIGMOID_CROSS_ENTROPY_LOSS": 27, "HINGE_LOSS": 28,
        "MEMORY_DATA": 29, "ARGMAX": 30, "THRESHOLD": 31, "DUMMY_DATA": 32, "SLICE": 33, "MVN": 34,
        "ABSVAL": 35, "SILENCE": 36, "CONTRASTIVE_LOSS": 37, "EXP": 38, "DECONVOLUTION": 39,
    },
}  # fmt: skip
V1_NAMES = {
    "CONCAT": "Concat",
    "CONVOLUTION": "Convolution",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "ELTWISE": "Eltwise",
    "FLATTEN": "Flatten",
    "IM2COL": "Im2col",
    "INNER_PRODUCT": "InnerProduct",
    "POOLING": "Pooling",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SPLIT": "Split",
    "TANH": "TanH",
}
"""Names of layer types in V1 files, and what they are called since."""


@functools.cache
def message_class(name: str) -> Any:
    """The class of one message; protobuf is imported here and in `files` only."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="jdeconv/caffe.proto", package="jdeconv.caffe", syntax="proto2"
    )
    for enum, values in ENUMS.items():
        # Values are known within the whole package, so each enumeration has a message to itself.
        holder = file.message_type.add(name=f"{enum}Enum")
        described = holder.enum_type.add(name=enum)
        for value, number in values.items():
            described.value.add(name=value, number=number)
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for field in fields.split(";"):
            _describe(described.field.add(), *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"jdeconv.caffe.{name}"))


def _describe(field: Any, name: str, number: str, kind: str) -> None:
    kind, _, default = kind.partition("=")
    repeated, kind = kind.endswith("*"), kind.rstrip("*")
    field.name, field.number = name, int(number)
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind in MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".jdeconv.caffe.{kind}"
    elif kind in ENUMS:
        field.type, field.type_name = field.TYPE_ENUM, f".jdeconv.caffe.{kind}Enum.{kind}"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")
        if repeated and (name.endswith("data") or name == "dim"):
            field.options.packed = True
    if default:
        field.default_value = default
