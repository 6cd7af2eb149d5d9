"""The messages of Caffe's files, as far as they are read here: names, numbers, kinds and defaults of fields.

Written out as protobuf descriptors, so that no generated code is needed. A field that is not listed is an error
in a prototxt, as a typing error would be. Forks give one number to different fields, so theirs have numbers
from 5001 on here, and a caffemodel is read as a StoredNet, which has only what all forks share.

Source: BVLC Caffe, src/caffe/proto/caffe.proto, and those of SegNet, PSPNet, DeepLab, SSD and Fast R-CNN.
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
    "AccuracyParameter": "top_k 1 uint32=1; axis 2 int32=1; ignore_label 3 int32",
    "ArgMaxParameter": "out_max_val 1 bool=false; top_k 2 uint32=1; axis 3 int32",
    "BatchNormParameter": """use_global_stats 1 bool; moving_average_fraction 2 float=0.999;
        eps 3 float=1e-5""",
    "BiasParameter": "axis 1 int32=1; num_axes 2 int32=1; filler 3 FillerParameter",
    "BNParameter": """scale_filler 1 FillerParameter; shift_filler 2 FillerParameter; bn_mode 3 BNMode=LEARN;
        slope_filler 5001 FillerParameter; bias_filler 5002 FillerParameter; momentum 5003 float=0.9;
        eps 5004 float=1e-5; frozen 5005 bool=false; engine 5006 Engine=DEFAULT""",
    "ClipParameter": "min 1 float; max 2 float",
    "ConcatParameter": "concat_dim 1 uint32; axis 2 int32=1",
    "ContrastiveLossParameter": "margin 1 float=1; legacy_version 2 bool=false",
    "ConvolutionParameter": """num_output 1 uint32; bias_term 2 bool=true; pad 3 uint32*; kernel_size 4 uint32*;
        group 5 uint32=1; stride 6 uint32*; weight_filler 7 FillerParameter;
        bias_filler 8 FillerParameter;
        pad_h 9 uint32; pad_w 10 uint32; kernel_h 11 uint32; kernel_w 12 uint32; stride_h 13 uint32;
        stride_w 14 uint32; engine 15 Engine=DEFAULT; axis 16 int32=1; force_nd_im2col 17 bool=false;
        dilation 18 uint32*; hole 5001 uint32*; hole_h 5002 uint32; hole_w 5003 uint32""",
    "CropCenterParameter": "crop_size 1 uint32*",
    "CropParameter": "axis 1 int32=2; offset 2 uint32*",
    "DropoutParameter": """dropout_ratio 1 float=0.5; scale_train 5001 bool=true;
        sample_weights_test 5002 bool=false""",
    "DummyDataParameter": """data_filler 1 FillerParameter*; num 2 uint32*; channels 3 uint32*;
        height 4 uint32*; width 5 uint32*; shape 6 BlobShape*""",
    "ELUParameter": "alpha 1 float=1",
    "EltwiseParameter": "operation 1 EltwiseOp=SUM; coeff 2 float*; stable_prod_grad 3 bool=true",
    "EmbedParameter": """num_output 1 uint32; input_dim 2 uint32; bias_term 3 bool=true;
        weight_filler 4 FillerParameter; bias_filler 5 FillerParameter""",
    "EngineParameter": "engine 1 Engine=DEFAULT",
    "ExpParameter": "base 1 float=-1; scale 2 float=1; shift 3 float=0",
    "FlattenParameter": "axis 1 int32=1; end_axis 2 int32=-1",
    "HingeLossParameter": "norm 1 HingeNorm=L1",
    "InfogainLossParameter": "source 1 string; axis 2 int32=1",
    "InnerProductParameter": """num_output 1 uint32; bias_term 2 bool=true; weight_filler 3 FillerParameter;
        bias_filler 4 FillerParameter; axis 5 int32=1; transpose 6 bool=false""",
    "InputParameter": "shape 1 BlobShape*",
    "InterpParameter": """height 1 int32=0; width 2 int32=0; zoom_factor 3 int32=1; shrink_factor 4 int32=1;
        pad_beg 5 int32=0; pad_end 6 int32=0""",
    "LRNParameter": """local_size 1 uint32=5; alpha 2 float=1; beta 3 float=0.75;
        norm_region 4 NormRegion=ACROSS_CHANNELS; k 5 float=1; engine 6 Engine=DEFAULT""",
    "LossParameter": """ignore_label 1 int32; normalize 2 bool; normalization 3 NormalizationMode=VALID;
        weight_by_label_freqs 5001 bool=false; class_weighting 5002 float*""",
    "MVNParameter": "normalize_variance 1 bool=true; across_channels 2 bool=false; eps 3 float=1e-9",
    "NormalizeParameter": """across_spatial 1 bool=true; scale_filler 2 FillerParameter;
        channel_shared 3 bool=true; eps 4 float=1e-10""",
    "ParameterParameter": "shape 1 BlobShape",
    "PermuteParameter": "order 1 uint32*",
    "PoolingParameter": """pool 1 PoolMethod=MAX; kernel_size 2 uint32; stride 3 uint32=1; pad 4 uint32=0;
        kernel_h 5 uint32; kernel_w 6 uint32; stride_h 7 uint32; stride_w 8 uint32; pad_h 9 uint32;
        pad_w 10 uint32; engine 11 Engine=DEFAULT; global_pooling 12 bool=false;
        round_mode 13 RoundMode=CEIL; ceil_mode 5001 bool=true""",
    "PowerParameter": "power 1 float=1; scale 2 float=1; shift 3 float=0",
    "PReLUParameter": "filler 1 FillerParameter; channel_shared 2 bool=false",
    "PythonParameter": "module 1 string; layer 2 string; param_str 3 string; share_in_parallel 4 bool=false",
    "ROIPoolingParameter": "pooled_h 1 uint32=0; pooled_w 2 uint32=0; spatial_scale 3 float=1",
    "ReLUParameter": "negative_slope 1 float=0; engine 2 Engine=DEFAULT",
    "ReductionParameter": "operation 1 ReductionOp=SUM; axis 2 int32=0; coeff 3 float=1",
    "ReshapeParameter": "shape 1 BlobShape; axis 2 int32=0; num_axes 3 int32=-1",
    "SPPParameter": "pyramid_height 1 uint32; pool 2 PoolMethod=MAX; engine 6 Engine=DEFAULT",
    "ScaleParameter": """axis 1 int32=1; num_axes 2 int32=1; filler 3 FillerParameter; bias_term 4 bool=false;
        bias_filler 5 FillerParameter""",
    "SliceParameter": "slice_dim 1 uint32; slice_point 2 uint32*; axis 3 int32=1",
    "SoftmaxParameter": "engine 1 Engine=DEFAULT; axis 2 int32=1",
    "SwishParameter": "beta 1 float=1",
    "ThresholdParameter": "threshold 1 float=0",
    "TileParameter": "axis 1 int32=1; tiles 2 int32",
    "UpsampleParameter": """scale 1 uint32=2; scale_h 2 uint32; scale_w 3 uint32; pad_out_h 4 bool=false;
        pad_out_w 5 bool=false; upsample_h 6 uint32; upsample_w 7 uint32""",
    "LayerParameter": """name 1 string; type 2 string; bottom 3 string*; top 4 string*; loss_weight 5 float*;
        param 6 ParamSpec*; blobs 7 BlobProto*; include 8 NetStateRule*; exclude 9 NetStateRule*;
        phase 10 Phase; propagate_down 11 bool*; loss_param 101 LossParameter;
        accuracy_param 102 AccuracyParameter; argmax_param 103 ArgMaxParameter;
        concat_param 104 ConcatParameter; contrastive_loss_param 105 ContrastiveLossParameter;
        convolution_param 106 ConvolutionParameter; dropout_param 108 DropoutParameter;
        dummy_data_param 109 DummyDataParameter; eltwise_param 110 EltwiseParameter; exp_param 111 ExpParameter;
        hinge_loss_param 114 HingeLossParameter; infogain_loss_param 116 InfogainLossParameter;
        inner_product_param 117 InnerProductParameter; lrn_param 118 LRNParameter;
        mvn_param 120 MVNParameter; pooling_param 121 PoolingParameter; power_param 122 PowerParameter;
        relu_param 123 ReLUParameter; sigmoid_param 124 EngineParameter; softmax_param 125 SoftmaxParameter;
        slice_param 126 SliceParameter; tanh_param 127 EngineParameter;
        threshold_param 128 ThresholdParameter; python_param 130 PythonParameter;
        prelu_param 131 PReLUParameter; spp_param 132 SPPParameter; reshape_param 133 ReshapeParameter;
        log_param 134 ExpParameter; flatten_param 135 FlattenParameter;
        reduction_param 136 ReductionParameter; embed_param 137 EmbedParameter; tile_param 138 TileParameter;
        batch_norm_param 139 BatchNormParameter; elu_param 140 ELUParameter; bias_param 141 BiasParameter;
        scale_param 142 ScaleParameter; input_param 143 InputParameter; crop_param 144 CropParameter;
        parameter_param 145 ParameterParameter; swish_param 147 SwishParameter; clip_param 148 ClipParameter;
        bn_param 5001 BNParameter; crop_center_param 5002 CropCenterParameter;
        interp_param 5003 InterpParameter; norm_param 5004 NormalizeParameter;
        permute_param 5005 PermuteParameter; roi_pooling_param 5006 ROIPoolingParameter;
        upsample_param 5007 UpsampleParameter""",
    "V1LayerParameter": """bottom 2 string*; top 3 string*; name 4 string; type 5 V1Type; blobs 6 BlobProto*;
        blobs_lr 7 float*; weight_decay 8 float*; concat_param 9 ConcatParameter;
        convolution_param 10 ConvolutionParameter; dropout_param 12 DropoutParameter;
        infogain_loss_param 16 InfogainLossParameter; inner_product_param 17 InnerProductParameter;
        lrn_param 18 LRNParameter; pooling_param 19 PoolingParameter; power_param 21 PowerParameter;
        argmax_param 23 ArgMaxParameter; eltwise_param 24 EltwiseParameter;
        threshold_param 25 ThresholdParameter; dummy_data_param 26 DummyDataParameter;
        accuracy_param 27 AccuracyParameter;
        hinge_loss_param 29 HingeLossParameter; relu_param 30 ReLUParameter; slice_param 31 SliceParameter;
        include 32 NetStateRule*; exclude 33 NetStateRule*; mvn_param 34 MVNParameter;
        loss_weight 35 float*; tanh_param 37 EngineParameter;
        sigmoid_param 38 EngineParameter; softmax_param 39 SoftmaxParameter;
        contrastive_loss_param 40 ContrastiveLossParameter; exp_param 41 ExpParameter;
        loss_param 42 LossParameter; param 1001 string*; blob_share_mode 1002 DimCheckMode*""",
    "NetParameter": """name 1 string; layers 2 V1LayerParameter*; input 3 string*; input_dim 4 int32*;
        force_backward 5 bool; state 6 NetState; debug_info 7 bool; input_shape 8 BlobShape*;
        layer 100 LayerParameter*""",
    "StoredBlob": """num 1 int32; channels 2 int32; height 3 int32; width 4 int32; data 5 bytes;
        shape 7 BlobShape; double_data 8 bytes""",  # numbers as they lie in the file
    "StoredLayer": "name 1 string; type 2 string; bottom 3 string*; top 4 string*; blobs 7 StoredBlob*",
    "StoredV1Layer": "bottom 2 string*; top 3 string*; name 4 string; type 5 int32; blobs 6 StoredBlob*",
    "StoredNet": "name 1 string; layers 2 StoredV1Layer*; layer 100 StoredLayer*",
    "SolverParameter": """train_net 1 string; test_net 2 string*; test_iter 3 int32*; test_interval 4 int32=0;
        base_lr 5 float; display 6 int32; max_iter 7 int32; lr_policy 8 string; gamma 9 float; power 10 float;
        momentum 11 float; weight_decay 12 float; stepsize 13 int32; snapshot 14 int32=0;
        snapshot_prefix 15 string; snapshot_diff 16 bool=false; solver_mode 17 SolverMode=GPU;
        device_id 18 int32=0; test_compute_loss 19 bool=false; random_seed 20 int64=-1;
        train_net_param 21 NetParameter;
        test_net_param 22 NetParameter*; debug_info 23 bool=false; net 24 string; net_param 25 NetParameter;
        train_state 26 NetState; test_state 27 NetState*; snapshot_after_train 28 bool=true;
        regularization_type 29 string=L2; solver_type 30 SolverType=SGD; delta 31 float=1e-8;
        test_initialization 32 bool=true; average_loss 33 int32=1; stepvalue 34 int32*;
        clip_gradients 35 float=-1;
        iter_size 36 int32=1; snapshot_format 37 SnapshotFormat=BINARYPROTO; rms_decay 38 float=0.99;
        momentum2 39 float=0.999; type 40 string=SGD; layer_wise_reduce 41 bool=true; weights 42 string*;
        eval_type 5001 string; ap_version 5002 string; show_per_class_result 5003 bool=false""",
}
V1_TYPES = {
    "NONE": (0, "NONE"),
    "ACCURACY": (1, "Accuracy"), "BNLL": (2, "BNLL"), "CONCAT": (3, "Concat"),
    "CONVOLUTION": (4, "Convolution"), "DATA": (5, "Data"), "DROPOUT": (6, "Dropout"),
    "EUCLIDEAN_LOSS": (7, "EuclideanLoss"), "FLATTEN": (8, "Flatten"), "HDF5_DATA": (9, "HDF5Data"),
    "HDF5_OUTPUT": (10, "HDF5Output"), "IM2COL": (11, "Im2col"), "IMAGE_DATA": (12, "ImageData"),
    "INFOGAIN_LOSS": (13, "InfogainLoss"), "INNER_PRODUCT": (14, "InnerProduct"), "LRN": (15, "LRN"),
    "MULTINOMIAL_LOGISTIC_LOSS": (16, "MultinomialLogisticLoss"), "POOLING": (17, "Pooling"),
    "RELU": (18, "ReLU"), "SIGMOID": (19, "Sigmoid"), "SOFTMAX": (20, "Softmax"),
    "SOFTMAX_LOSS": (21, "SoftmaxWithLoss"), "SPLIT": (22, "Split"), "TANH": (23, "TanH"),
    "WINDOW_DATA": (24, "WindowData"), "ELTWISE": (25, "Eltwise"), "POWER": (26, "Power"),
    "SIGMOID_CROSS_ENTROPY_LOSS": (27, "SigmoidCrossEntropyLoss"), "HINGE_LOSS": (28, "HingeLoss"),
    "MEMORY_DATA": (29, "MemoryData"), "ARGMAX": (30, "ArgMax"), "THRESHOLD": (31, "Threshold"),
    "DUMMY_DATA": (32, "DummyData"), "SLICE": (33, "Slice"), "MVN": (34, "MVN"), "ABSVAL": (35, "AbsVal"),
    "SILENCE": (36, "Silence"), "CONTRASTIVE_LOSS": (37, "ContrastiveLoss"), "EXP": (38, "Exp"),
    "DECONVOLUTION": (39, "Deconvolution"),
}  # fmt: skip
"""Layer types of V1 files: the number, and what the type is called since."""
ENUMS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "VarianceNorm": {"FAN_IN": 0, "FAN_OUT": 1, "AVERAGE": 2},
    "DimCheckMode": {"STRICT": 0, "PERMISSIVE": 1},
    "Engine": {"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "BNMode": {"LEARN": 0, "INFERENCE": 1},
    "HingeNorm": {"L1": 1, "L2": 2},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "NormalizationMode": {"FULL": 0, "VALID": 1, "BATCH_SIZE": 2, "NONE": 3},
    "ReductionOp": {"SUM": 1, "ASUM": 2, "SUMSQ": 3, "MEAN": 4},
    "SnapshotFormat": {"HDF5": 0, "BINARYPROTO": 1},
    "SolverMode": {"CPU": 0, "GPU": 1},
    "SolverType": {"SGD": 0, "NESTEROV": 1, "ADAGRAD": 2, "RMSPROP": 3, "ADADELTA": 4, "ADAM": 5},
    "V1Type": {name: number for name, (number, _) in V1_TYPES.items()},
}


def message_class(name: str) -> Any:
    """The class of one message."""
    from google.protobuf import message_factory

    described = _pool().FindMessageTypeByName(f"jdeconv.caffe.{name}")
    return message_factory.GetMessageClass(described)


@functools.cache
def _pool() -> Any:
    """All messages."""
    from google.protobuf import descriptor_pb2, descriptor_pool

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
    return pool


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
