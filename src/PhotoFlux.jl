"""
PhotoFlux trains, evaluates and applies image classifiers on Flux.jl, with explicit L1/L2 penalties and Keras' Adam.

One direction: prepared dataset → [`train`](@ref) → [`Run`](@ref) → [`evaluate`](@ref), [`predict`](@ref).
"""
module PhotoFlux

using Base.CoreLogging: NullLogger, with_logger
using CRC32c: crc32c
using ChainRulesCore: ChainRulesCore
using Flux: Flux, Chain, Conv, Dense, Dropout, MLUtils, NNlib, Zygote
using Flux: logitbinarycrossentropy, logitcrossentropy, onehotbatch, relu, relu6, sigmoid, softmax
using GPUArraysCore: AbstractGPUArray
using JSON: JSON
using KernelAbstractions: KernelAbstractions, @Const, @index, @kernel, get_backend
using LinearAlgebra: mul!
using MLDataDevices: MLDataDevices, AMDGPUDevice, AbstractDevice, CPUDevice, CUDADevice, MetalDevice, get_device
using Mmap: Mmap
using Optimisers: Optimisers
using PrecompileTools: @compile_workload, @setup_workload
using Printf: @sprintf
using Random: AbstractRNG, Random, Xoshiro, rand!
using SHA: SHA, sha256
using Statistics: mean
using TOML: TOML

export train, evaluate, predict, load_run, save_run, Run
export variant, variants, Variant
export PreparedDataset, open_dataset, indices
export NoPenalty, L1, L2, ElasticNet, KerasAdam
export load_backbone, backbone_features, fine_tune, save_backbone
export on_train_begin, on_epoch_begin, on_batch_end, on_epoch_end, on_train_end, stop!
export network_variant, PhotoFluxClassifier
export layers, build_model, read_weights, write_weights, load_weights!

# The source is in `julia/`; Julia 1.10 looks for the entry here and knows no `entryfile`.
include("../julia/kernels/Kernels.jl")
using .Kernels

include("../julia/barrier.jl")
include("../julia/json.jl")
include("../julia/random.jl")
include("../julia/penalties.jl")
include("../julia/variants.jl")
include("../julia/layers.jl")
include("../julia/pooling.jl")
include("../julia/conv.jl")
include("../julia/models.jl")
include("../julia/networks.jl")
include("../julia/network_layers.jl")
include("../julia/adam.jl")
include("../julia/step.jl")
include("../julia/datasets.jl")
include("../julia/observations.jl")
include("../julia/augment.jl")
include("../julia/batches.jl")
include("../julia/devices/devices.jl")
include("../julia/devices/kernels.jl")
include("../julia/devices/batches.jl")
include("../julia/losses.jl")
include("../julia/devices/step.jl")
include("../julia/files.jl")
include("../julia/weights.jl")
include("../julia/seen.jl")
include("../julia/evaluation.jl")
include("../julia/backbone.jl")
include("../julia/features.jl")
include("../julia/transfer.jl")
include("../julia/run.jl")
include("../julia/fit_state.jl")
include("../julia/checkpoints.jl")
include("../julia/divergence.jl")
include("../julia/callbacks.jl")
include("../julia/adam_step.jl")
include("../julia/training.jl")
include("../julia/runs.jl")
include("../julia/trace.jl")
include("../julia/tail.jl")
include("../julia/finetuning.jl")
include("../julia/mlj.jl")
include("../julia/engine.jl")
include("../julia/precompile.jl")

end
