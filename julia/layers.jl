"""
    Layer

A layer of a model, for one image: an entry of the list that [`layers`](@ref) returns.

# Fields
- `name::Symbol`: in the `Chain` and in weights files.
- `kind::String`: `"rescaling"`, `"standardisation"`, `"convolution"`, `"max pooling"`, `"dropout"`, `"flatten"` or `"dense"`.
- `shape::Dims`: of its output, (width, height, channels) or (units,).
- `weight::Dims`: of its kernel in Flux' layout, (width, height, inputs, outputs) or (outputs, inputs); empty where it has none.
  The bias has as many entries as there are outputs.
- `relu::Bool`: whether ReLU follows.
- `penalty::Penalty`: of the kernel.
- `rate::Float32`: the share of its inputs that a `"dropout"` layer sets to 0 in training.
- `zeros::Bool`: whether the kernel starts at zero and not at Glorot-uniform numbers.
"""
Base.@kwdef struct Layer
    name::Symbol
    kind::String
    shape::Dims
    weight::Dims = ()
    relu::Bool = false
    penalty::Penalty = NoPenalty()
    rate::Float32 = 0
    zeros::Bool = false
end

"""
    NetworkLayers

What [`layers`](@ref) returns of a variant that has a network of a user's own.

# Fields
- `network::Dict{String,Any}`: its description, see [`describe`](@ref).
- `input::NTuple{3,Int}`: width, height and channels of an image.
- `outputs::Int`: how many logits it must give.
- `penalty::Penalty`: of each kernel of its `Dense` layers and convolutions.
"""
struct NetworkLayers
    network::Dict{String,Any}
    input::NTuple{3,Int}
    outputs::Int
    penalty::Penalty
end

"""
    layers(variant, input, classes)

Return the layers of a variant, first to last. Models, weights files and penalties are made from this list.

# Arguments
- `variant::Union{AbstractString,Variant}`
- `input::NTuple{3,Int}`: width, height and channels of an image; of features 1, 1 and how many there are.
- `classes::Int`: 2 or more; 2 means one logit (the log-odds of the second class), more a logit a class.

# Returns
- `Vector{Layer}`, see [`PhotoFlux.Layer`](@ref); of a network of your own [`PhotoFlux.NetworkLayers`](@ref).

# Throws
- `ArgumentError`: a size or a number of classes that is too small, or an unknown variant.

# Examples
```jldoctest
julia> last(layers("dense_l2", (28, 28, 1), 10)).weight
(10, 128)
```
"""
layers(name::AbstractString, input, classes) = layers(variant(name), input, classes)

function layers(v::Variant, input::NTuple{3,Integer}, classes::Integer)
    width, height, channels = input
    if takes_features(v)
        (width, height) == (1, 1) && channels >= 1 || throw(ArgumentError(
            "The variant \"$(v.name)\" takes features, so `input` must be (1, 1, features); received: $input."))
    elseif min(width, height) < 2 || channels < 1
        throw(ArgumentError("`input` must be (width ≥ 2, height ≥ 2, channels ≥ 1); received: $input."))
    end
    classes >= 2 || throw(ArgumentError("`classes` must be 2 or more; received: $classes."))
    if v.architecture == NETWORK
        return NetworkLayers(v.chain, Int.(input), outputs(classes), get(v.penalty, "kernels", NoPenalty()))
    end
    first_layer = takes_features(v) ? (; name=:standardise, kind="standardisation") : (; name=:rescale, kind="rescaling")
    list = [Layer(; first_layer..., shape=input)]
    if v.architecture == "photo_cnn"
        add_convolution!(list, v, :conv1, 16)
        push!(list, Layer(; name=:pool, kind="max pooling", shape=(width ÷ 2, height ÷ 2, 16)))
        add_dropout!(list, v, :pool_dropout, "pool")
        add_convolution!(list, v, :conv2, 32)
        add_convolution!(list, v, :conv3, 64)
    end
    push!(list, Layer(; name=:flatten, kind="flatten", shape=(prod(last(list).shape),)))
    for (i, units) in enumerate(v.hidden)
        add_dense!(list, v, Symbol(:dense, i), units, "hidden")
        add_dropout!(list, v, Symbol(:dense, i, :_dropout), "hidden")
    end
    # Of a linear head on features: the few images span few directions, and in the others drawn numbers would stay as noise.
    zeros = takes_features(v) && isempty(v.hidden)
    return add_dense!(list, v, :output, outputs(classes), "output"; relu=false, zeros)
end

"""
    outputs(classes)

Return the number of logits: 1 for two classes, else one a class.
"""
outputs(classes::Integer) = classes == 2 ? 1 : Int(classes)

function penalty_of_group(v, group)
    p = get(v.penalty, group, NoPenalty())
    return v.proximal && p isa Union{L1,ElasticNet} ? Proximal(p) : p
end

function add_convolution!(list, v, name, filters)
    width, height, channels = last(list).shape
    return push!(list, Layer(; name, kind="convolution", shape=(width, height, filters), weight=(3, 3, channels, filters),
        relu=true, penalty=penalty_of_group(v, "conv")))
end

function add_dense!(list, v, name, units, group; relu=true, zeros=false)
    weight = (units, only(last(list).shape))
    return push!(list, Layer(; name, kind="dense", shape=(units,), weight, relu, penalty=penalty_of_group(v, group), zeros))
end

function add_dropout!(list, v, name, group)
    rate = get(v.dropout, group, 0.0f0)
    return iszero(rate) ? list : push!(list, Layer(; name, kind="dropout", last(list).shape, rate))
end

"""
    kernels(layers)

Return the names of the layers that have a kernel and a bias, first to last.
"""
kernels(list::Vector{Layer}) = [layer.name for layer in list if !isempty(layer.weight)]

# Width, height and channels of an image, or of features.
input_of(list::Vector{Layer}) = first(list).shape

"""
    standardisations(layers)

Return the names of the layers that have a mean and a deviation, which are measured and not trained.
"""
standardisations(list::Vector{Layer}) = [layer.name for layer in list if layer.kind == "standardisation"]

"""
    kernel_penalties(layers)

Return the penalised kernels: pairs of a layer's name and its [`Penalty`](@ref).
"""
function kernel_penalties(list::Vector{Layer})
    # Of one type whatever the penalties, so that what takes them is compiled once.
    return Pair{Symbol,Penalty}[layer.name => layer.penalty for layer in list if !(layer.penalty isa NoPenalty)]
end
