"""
PhotoFlux trains, evaluates and applies image classifiers on Flux.jl, with explicit L1/L2 penalties and Keras' Adam.

One direction: prepared dataset → [`train`](@ref) → [`Run`](@ref) → [`evaluate`](@ref), [`predict`](@ref).
"""
module PhotoFlux

using Flux: Flux, Chain, CrossCor, Dense, Dropout, MaxPool, SamePad, logσ, logsoftmax, onehotbatch, relu, softmax
using JSON: JSON
using Mmap: Mmap
using Optimisers: Optimisers
using PrecompileTools: @compile_workload, @setup_workload
using Printf: @sprintf
using Random: Random, AbstractRNG, Xoshiro, shuffle
using SHA: sha256
using Statistics: mean
using TOML: TOML

export train, evaluate, predict, load_run, save_run, Run
export variant, variants, Variant
export PreparedDataset, open_dataset, indices
export NoPenalty, L1, L2, ElasticNet, KerasAdam
export build_model, read_weights, write_weights, load_weights!

include("random.jl")
include("penalties.jl")
include("variants.jl")
include("models.jl")
include("adam.jl")
include("datasets.jl")
include("augment.jl")
include("batches.jl")
include("losses.jl")
include("weights.jl")
include("evaluation.jl")
include("training.jl")
include("runs.jl")
include("trace.jl")
include("precompile.jl")

end
